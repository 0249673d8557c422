"""Run the tours as notebooks: figures/tours/<system>.ipynb, and .html pages that need no other file.

    python scripts/make_tours.py [DIR]      figures/tours/ by default; two minutes

Needs the extra `lessons`: jupytext, nbclient, nbconvert, ipykernel. A cell that raises stops it.
"""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
try:
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter
except ImportError as missing:
    sys.exit(f'make_tours: {missing.name} is not installed; pip install "refimpl[lessons]"')


def notebook(path):
    """The tour as a notebook, run in its own folder of scripts."""
    tour = jupytext.read(path)
    tour.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE)])
    NotebookClient(tour, timeout=600, resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in tour.cells:
        cell.metadata.pop("execution", None)        # the times of this run
    for number, cell in enumerate(tour.cells):
        cell["id"] = f"cell-{number}"
    return tour


def page(tour, title):
    """The notebook as one HTML page, without scripts: it loads nothing from elsewhere."""
    exporter = HTMLExporter(template_name="classic", embed_images=True)
    body, _ = exporter.from_notebook_node(tour, {"metadata": {"name": title}})
    return re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "figures" / "tours"
    folder.mkdir(parents=True, exist_ok=True)
    for system in ("induction", "recall"):
        tour = notebook(HERE / f"tour_{system}.py")
        nbformat.write(tour, folder / f"{system}.ipynb")
        (folder / f"{system}.html").write_text(page(tour, f"A tour of {system}"), encoding="utf-8")
        sizes = (f"{(folder / f'{system}.{kind}').stat().st_size / 1e6:.1f} MB" for kind in ("ipynb", "html"))
        print(f"{folder / system}: {', '.join(sizes)}")


if __name__ == "__main__":
    main()
