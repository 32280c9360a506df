"""Draws flowgraphs as GNU Radio Companion shows them: ``xvfb-run /usr/bin/python3 tools/render_flowgraphs.py [NAME.grc ...]``.

Pictures go to flowgraphs/pictures. Needs GNU Radio's own Python, GTK (gir1.2-gtk-3.0) and an X server. Without names, all flowgraphs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTLE_MILLISECONDS = 2000  # Companion lays the blocks out after its window has appeared


def render(path: Path) -> None:
    """Opens one flowgraph in Companion and saves its picture."""
    import gi

    gi.require_version("Gtk", "3.0")
    gi.require_version("PangoCairo", "1.0")
    from gi.repository import GLib
    from gnuradio import gr
    from gnuradio.grc.gui.Platform import Platform  # isort: skip, this one first: Companion's modules import one another
    from gnuradio.grc.gui import Utils
    from gnuradio.grc.gui.Application import Application

    version = (gr.major_version(), gr.api_version(), gr.minor_version())
    platform = Platform(version=gr.version(), version_parts=version, prefs=gr.prefs(), install_prefix=gr.prefix())
    platform.build_library()
    application = Application([str(path)], platform)

    def shoot() -> None:
        Utils.make_screenshot(application.main_window.current_flow_graph, str(path.parent / "pictures" / f"{path.stem}.png"))
        application.quit()

    GLib.timeout_add(SETTLE_MILLISECONDS, shoot)
    application.run()


def main() -> None:
    """One Companion a process: it keeps global state."""
    os.environ.setdefault("NO_AT_BRIDGE", "1")
    os.environ["GRC_BLOCKS_PATH"] = str(ROOT / "grc")
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or sorted((ROOT / "flowgraphs").glob("*.grc"))
    if len(chosen) == 1:
        render(chosen[0])
        return
    for path in chosen:
        os.spawnl(os.P_WAIT, sys.executable, sys.executable, __file__, str(path))


if __name__ == "__main__":
    main()
