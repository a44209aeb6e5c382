"""Which files a backend wants, and whether a folder holds a finished export."""
from pathlib import Path
def wanted_files(): return ("*.json","*.safetensors")
def export_in(folder): return None
