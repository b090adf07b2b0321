"""What mkdocs learns beside mkdocs.yml: where the package is whole, and which files outside of docs/ are linked."""

import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

from qpa_hf import QPAConfig
from qpa_hf.generator import settings_in

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "build" / "whole"
ELSEWHERE = ("model_cards", "trainer_callbacks")  # rooms of the package that lie at the top of the tree
SETTINGS = "<!-- settings -->"  # in a page: where the table of all settings stands
EXAMPLE = re.compile(r"^( +)Example:$", re.MULTILINE)  # in the plural the reference knows it for a session of Python
LINK = re.compile(r"(?<=\]\()([\w./-]+)(?=[)#])")
OUTSIDE = re.compile(r"(?<=\]\()((?:\.\./)+)([\w./-]+)(?=[)#])")


def on_startup(command, dirty):
    """Lay the package out with all of its rooms, for the reference, which reads files and imports nothing.

    It must be there before the reference is configured, which passes over places that are not.
    """
    shutil.rmtree(WHOLE, ignore_errors=True)
    shutil.copytree(ROOT / "qpa_hf", WHOLE / "qpa_hf")
    for name in ELSEWHERE:
        shutil.copytree(ROOT / name, WHOLE / "qpa_hf" / name)
    for path in WHOLE.rglob("*.py"):
        path.write_text(EXAMPLE.sub(r"\1Examples:", path.read_text(encoding="utf-8")), encoding="utf-8")


def on_files(files, config):
    """Give the site every file outside of docs/ that a page links to, under the name that it has in the repository."""
    pages = list(files.documentation_pages())
    for page in pages:  # which grows by the pages among those files
        for name in _outside(page):
            if (ROOT / name).is_file() and name not in files.src_uris:
                file = File.generated(config, name, abs_src_path=str(ROOT / name))
                files.append(file)
                if file.is_documentation_page():
                    pages.append(file)
    return files


def _outside(page):
    """Return the names in the repository of what a page links to outside of docs/."""
    if Path(page.abs_src_path or "").is_relative_to(ROOT / "docs"):
        return [name for ups, name in OUTSIDE.findall(page.content_string) if _leaves(page, ups)]
    folder = (ROOT / page.src_uri).parent
    targets = ((folder / link).resolve() for link in LINK.findall(page.content_string))
    return [path.relative_to(ROOT).as_posix() for path in targets if path.is_relative_to(ROOT)]


def on_page_markdown(markdown, page, config, files):
    """Lead such links to where the site has the file, and put the settings in."""

    def led(link):
        return link[0].removeprefix("../") if _leaves(page.file, link[1]) else link[0]  # one folder less lies between

    return OUTSIDE.sub(led, markdown).replace(SETTINGS, _settings())


def _settings():
    """Return a table of the settings that QPAConfig adds to LoRA's."""
    fields = QPAConfig.__dataclass_fields__
    rows = [f"| `{name}` | `{fields[name].default!r}` | {one.help} |" for name, one in settings_in(QPAConfig).items()]
    return "\n".join(["| setting | default | what it does |", "|---|---|---|", *rows])


def _leaves(page, ups):
    """Whether a link goes up so often that it leaves docs/."""
    return ups.count("../") == page.src_uri.count("/") + 1
