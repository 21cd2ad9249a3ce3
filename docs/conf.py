"""Sphinx configuration; the build reads nothing from the network."""

import os
import warnings

import sharpfit

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("error", module=r"sharpfit\..*")

project = "sharpfit"
copyright = "2026, the sharpfit developers"
author = "The sharpfit developers"
release = version = sharpfit.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/**/*.md5"]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["sharpfit.css"]

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autosummary_context = {"top_level": sharpfit.__all__}
autodoc_typehints = "none"  # numpydoc sections carry the types
numpydoc_show_class_members = False  # the class template lists methods, inherited ones apart
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "sharpfit"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
}
WIDE_PAGES = (
    "getting_started",
    "theory",
    "evidence",
    "progressive_sharpening",
    "architecture",
    "limits",
)
html_sidebars = {page: [] for page in WIDE_PAGES}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"plot_",
    "ignore_pattern": r"demo\.py",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "capture_repr": (),
    "show_memory": False,
    "download_all_examples": False,
    "plot_gallery": True,
    "min_reported_time": 0,
    "reference_url": {"sharpfit": None},
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("sharpfit",),
}
