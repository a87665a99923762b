// Sends chosen files one by one, then asks the server to read them. What goes wrong the server says in the page.
window.trame.utils.neuralreg = {
  async upload(files) {
    const chosen = Array.from(files || []);
    if (!chosen.length) return;
    const batch = "upload/" + Math.random().toString(36).slice(2);
    window.trame.state.set("uploading", "Uploading…");
    try {
      for (const file of chosen) {
        const answer = await fetch(`${batch}/${encodeURIComponent(file.name)}`, { method: "POST", body: file });
        if (!answer.ok) return;
      }
      await fetch(batch, { method: "POST" });
    } catch (error) {
      console.warn("upload", error); // the server ended the connection: its sentence is in the page already
    } finally {
      window.trame.state.set("uploading", "");
    }
  },
};
