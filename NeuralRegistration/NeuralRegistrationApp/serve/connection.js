// A computer that slept, or a network that failed, ends the connection; trame would leave it at that.
window.trame.addConnectListener(() => {
  window.trame.client.onConnectionClose(async () => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 2000));
      const answer = await fetch("index.html").catch(() => null);
      if (answer?.ok) return window.location.reload();
    }
  });
});
