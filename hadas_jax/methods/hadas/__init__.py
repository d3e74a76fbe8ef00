"""HADAS: backbone, early exits and clocks searched together, by evolution within evolution (DATE 2023)."""
