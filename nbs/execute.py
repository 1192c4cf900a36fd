"""Run notebooks from top to bottom and store what they print: python nbs/execute.py NOTEBOOK ..."""
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


class Client(NotebookClient):
    """A client that lets widgets be: nothing here can be moved."""

    def handle_comm_msg(self, outs, msg, cell_index):
        pass


def kept(cell):
    """What is stored of a cell's outputs: no bars, which tell the time that it took this once.

    Of `interact` nothing, since its picture stands above it.
    """
    if any(line.startswith("interact(") for line in cell.source.splitlines()):
        return []
    moves = lambda output: WIDGET in output.get("data", {}) or output.get("metadata", {}).get("mnist_ce") == "bar"
    return [output for output in cell.outputs if not moves(output)]


def execute(path):
    """The notebook at `path` with fresh outputs; what only moves in a browser is left out."""
    notebook = nbformat.read(path, as_version=4)
    settings = dict(timeout=600, coalesce_streams=True)
    where = {"metadata": {"path": str(Path(path).parent)}}
    # One thread: the same bits on every machine with the same processor.
    alone = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    Client(notebook, kernel_name="python3", resources=where, **settings).execute(env=alone)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = kept(cell)
    return notebook


if __name__ == "__main__":
    for path in sys.argv[1:]:
        nbformat.write(execute(path), path)
