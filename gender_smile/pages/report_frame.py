"""The frame of tools/report.py's page: its head, style and places for what is filled in."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gender and smile: run of profile @PROFILE@</title>
<style>
:root { --ink: #1d2a26; --soft: #5f6b66; --line: #dde3e0; --accent: #2e7d5b; --paper: #d1495b; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff; margin: 0; }
header { background: #f1f6f3; border-bottom: 3px solid var(--accent); padding: 1.6rem max(1.2rem, calc(50% - 34rem)); }
header h1 { margin: 0 0 .2rem; font-size: 1.6rem; }
header nav { margin-top: .7rem; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
header a { color: var(--accent); text-decoration: none; }
main { max-width: 70rem; margin: 0 auto; padding: .5rem 1.2rem 3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .7rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .9rem; }
.card { border: 1px solid var(--line); border-left: 5px solid var(--accent); border-radius: .5rem; padding: .8rem 1rem; }
.card .title { font-weight: 600; } .card .figure { font-size: 2rem; font-weight: 700; line-height: 1.25; }
.card .paper { color: var(--paper); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 .8rem; font-size: .9rem; }
th, td { text-align: left; padding: .22rem .7rem .22rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; } section:last-child td { font-size: .78rem; }
img.curves, img.figure { max-width: 100%; height: auto; }
.caption, small { color: var(--soft); }
table.crops img { width: 7rem; height: 7rem; border-radius: .25rem; display: block; }
.crops td { border: 0; padding: .2rem .5rem .2rem 0; } .crops th { max-width: 8rem; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
figure { margin: 0; } figure img { width: 100%; border-radius: .35rem; image-rendering: auto; }
figcaption { font-size: .85rem; line-height: 1.35; } figcaption b { color: var(--paper); }
.missing { background: #faf5e8; border-left: 4px solid #b07d2b; padding: .5rem .8rem; }
@media print {
  header nav { display: none; } body { font-size: 10.5px; } h2 { break-after: avoid; } h3 { break-after: avoid; }
  tr, figure, .card, img { break-inside: avoid; } .wide { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
</style>
</head>
<body>
<header>
<h1>Gender and Smile Classification: a run of profile @PROFILE@</h1>
<div>Reproduction of Zhang, Tan, Li and Qiao, CVPR workshops 2016; this page was written @DATE@</div>
<nav>@LINKS@</nav>
</header>
<main>
@BODY@
</main>
</body>
</html>
"""
