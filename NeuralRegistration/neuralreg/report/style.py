"""The look of the page: light and dark, screen and paper. In a module, so that it is installed with the code."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1d2328; --quiet: #5d6871; --line: #dfe3e7; --panel: #f6f7f8; --accent: #2166ac;
  --green: #1a7f4b; --amber: #a36200; --red: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181b; --text: #e4e8eb; --quiet: #98a3ab; --line: #2c343a; --panel: #1b2125; --accent: #74aadb;
    --green: #5cc28b; --amber: #e0a443; --red: #f2837b;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 26px; font-weight: 600; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; font-weight: 600; margin: 44px 0 4px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.quiet, figcaption, td.rule { color: var(--quiet); }
.pair { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 14px 0; }
.pair dt { color: var(--quiet); } .pair dd { margin: 0; overflow-wrap: anywhere; }
.verdict { display: flex; gap: 12px; align-items: baseline; margin: 20px 0 0; padding: 12px 16px;
  background: var(--panel); border-left: 4px solid var(--light); border-radius: 3px; }
.light { color: var(--light); font-weight: 600; white-space: nowrap; }
.light::before { content: ""; display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.5em;
  border-radius: 50%; background: var(--light); }
.green { --light: var(--green); } .amber { --light: var(--amber); } .red { --light: var(--red); }
.row { display: grid; grid-template-columns: 92px repeat(3, 1fr); gap: 8px; align-items: center; margin-top: 8px; }
.row.titles { color: var(--quiet); font-size: 13px; margin-bottom: -4px; }
.row > .name { color: var(--quiet); font-size: 13px; line-height: 1.3; }
.row > .name b { display: block; color: var(--text); font-weight: 600; }
figure.slice { position: relative; margin: 0; background: #000; border-radius: 3px; overflow: hidden; aspect-ratio: 1;
  color: #cfd6da; }
figure.slice img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
figure.slice span { position: absolute; font-size: 11px; opacity: 0.85; text-shadow: 0 0 3px #000, 0 0 2px #000; }
.w { left: 6px; top: calc(50% - 0.75em); } .e { right: 6px; top: calc(50% - 0.75em); }
.n { top: 3px; left: calc(50% - 0.4em); } .s { bottom: 3px; left: calc(50% - 0.4em); }
.checks td:first-child, .checks td.light { white-space: nowrap; }
.legend { margin-left: 100px; max-width: 640px; }
table { border-collapse: collapse; width: 100%; margin: 10px 0; }
th, td { text-align: left; vertical-align: top; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; font-size: 13px; color: var(--quiet); }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px; align-items: start; }
svg { display: block; width: 100%; max-width: 640px; height: auto; margin: 10px 0; }
svg text { fill: var(--quiet); font-size: 12px; }
.curve { fill: none; stroke: var(--accent); stroke-width: 1.6; }
.bar { fill: var(--accent); opacity: 0.75; }
.rule { stroke: var(--line); } .stage { stroke: var(--quiet); stroke-width: 0.8; }
ul { padding-left: 20px; margin: 6px 0; }
code { font: 13px ui-monospace, "SF Mono", Consolas, monospace; overflow-wrap: anywhere; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--line); font-size: 13px; color: var(--quiet); }
@media (max-width: 720px) { .row { grid-template-columns: repeat(3, 1fr); } .row > .name { grid-column: 1 / -1; }
  .columns { grid-template-columns: 1fr; } .legend { margin-left: 0; } }
@media print { main { padding: 0; max-width: none; } .row, table, svg { break-inside: avoid; }
  h2 { break-after: avoid; } }
"""
