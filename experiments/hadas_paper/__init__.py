"""The experiments of the HADAS paper: `python -m hadas_paper` in the folder above."""
