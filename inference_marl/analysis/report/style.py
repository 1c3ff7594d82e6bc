"""How a report looks: the page and its style sheet."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1c1c1a; --soft: #5b5b57; --rule: #1c1c1a; --hair: #dddcd6; --tint: #f4f3ee;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #16171a; --ink: #e8e6e1; --soft: #a9a69f; --rule: #c9c6bf; --hair: #3a3b3f; --tint: #202125; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 var(--serif); }
main { max-width: 56rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
h1, h2, h3 { font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: 2.1rem; margin: 0 0 1.4rem; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; margin: 3rem 0 0.75rem; overflow-wrap: anywhere; }
h3 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; overflow-wrap: anywhere; }
p { margin: 0 0 0.9rem; max-width: 42rem; }
.note { color: var(--soft); font-size: 0.875rem; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.3rem 1.5rem; margin: 0 0 0.6rem;
  padding: 0.9rem 0; border-top: 1.5px solid var(--rule); border-bottom: 1.5px solid var(--rule); font-size: 0.95rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font-family: var(--mono); font-size: 0.85em; }
.wide { overflow-x: auto; margin: 0 0 1rem; }
.wide:focus-visible { outline: 2px solid var(--soft); outline-offset: 3px; }
table { border-collapse: collapse; width: 100%; font: 0.8125rem/1.4 var(--sans); font-variant-numeric: tabular-nums;
  border-top: 1.5px solid var(--rule); border-bottom: 1.5px solid var(--rule); }
caption { caption-side: top; text-align: left; font: 0.9375rem/1.5 var(--serif); padding: 0 0 0.6rem;
  max-width: 44rem; }
th, td { padding: 0.22rem 0 0.22rem 1.1rem; text-align: right; font-weight: 400; vertical-align: top;
  white-space: nowrap; }
th.name { text-align: left; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 1px solid var(--rule); color: var(--soft); vertical-align: bottom; white-space: normal;
  padding-bottom: 0.35rem; }
thead th span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
td.long { white-space: normal; text-align: left; }
tr.group { break-after: avoid; }
tbody th.inner { padding-left: 1.1rem; }
tr.group th { font-weight: 600; padding-top: 0.6rem; }
tbody + tbody tr.group th { border-top: 1px solid var(--hair); }
figure { margin: 1.8rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff; border-radius: 3px; }
figcaption { font-size: 0.9375rem; line-height: 1.5; margin-top: 0.7rem; max-width: 44rem; }
pre { background: var(--tint); padding: 1rem 1.2rem; margin: 0; line-height: 1.45; white-space: pre-wrap;
  overflow-wrap: anywhere; border-radius: 3px; }
@media (prefers-color-scheme: dark) { figure img { padding: 0.6rem; } }
@media (max-width: 40rem) { .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 0.5rem; } }
@page { margin: 18mm 16mm; }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --rule: #000; --hair: #ccc; --tint: #f6f6f6; }
  body { font-size: 10pt; line-height: 1.4; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 19pt; } h2 { font-size: 13pt; margin-top: 1.8em; } h3 { font-size: 11pt; }
  h1, h2, h3, caption, p:has(+ pre) { break-after: avoid; }
  figure, tr, caption, .short, .facts { break-inside: avoid; }
  thead { display: table-header-group; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; }
  caption, figcaption, .facts { font-size: 9pt; }
  th, td { padding-left: 0.7em; }
  figure img { max-height: 100mm; width: auto; padding: 0; }
  pre { font-size: 7pt; columns: 2; column-gap: 8mm; padding: 0; background: none; }
  p { orphans: 3; widows: 3; }
}
"""
