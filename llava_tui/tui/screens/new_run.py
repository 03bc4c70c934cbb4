"""The form of a new run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.timer import Timer
from textual.widgets import Input

from llava_tui.tui import actions
from llava_tui.tui.screens.starting import StartingScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import TEXT, Line, fit
from llava_tui.tui.widgets.fields import FieldChanged, Fields, Picker, TextField
from llava_tui.tui.widgets.page import Page

if TYPE_CHECKING:
    from llava_tui.models import ModelEntry
    from llava_tui.plan import Plan
    from llava_tui.session.store import SessionInfo
    from llava_tui.tui.estimate import Estimate
    from llava_tui.tui.form import Form

AT_REST_S = 0.4
"""Nothing may be typed for that long before model and inputs are looked at."""
BESIDE = 110
"""From this many columns on the plan stands beside the form."""
LEAST_FORM = 5
"""Lines."""
SIDE = 58
"""Columns of the form beside the plan."""


class NewRunScreen(StartingScreen):
    """Fields on one side; what the plan comes to on the other. Nothing is started before it is asked for."""

    NAME = "new-run"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("new-run")]
    CSS = """
    NewRunScreen { layout: vertical; overflow: hidden; }
    NewRunScreen #body { height: 1fr; width: 1fr; }
    """

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        """``values``: a plan as a session's header keeps it; nothing: what was typed here last, else the defaults."""
        super().__init__(folder)
        from llava_tui.tui.form import Form
        from llava_tui.tui.form_fields import FIELDS

        self.values = values
        self.form: Form = Form(values)
        # Kept here: within a container they are not found before that is mounted.
        self._body = Container(id="body")
        self._fields = Fields(FIELDS, self.form.texts)
        self._page = Page(id="plan")
        self.prepared: Plan | None = None
        """The same, resolved and checked; ``None`` before it was."""
        self._estimate: Estimate | None = None
        self._said: tuple[str, str] = ("", TEXT)
        self._rest: Timer | None = None
        self._asked = 0
        self._checking = False
        self._models: list[ModelEntry] | None = None
        self._sessions: list[SessionInfo] | None = None

    # --- building ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The heading; the form, and the plan beside or below it; the footer."""
        yield LineCanvas(id="heading")
        with self._body:
            yield self._fields
            yield self._page
        yield LineCanvas(id="footer")

    def on_mount(self) -> None:
        """The form as it was left, unless it comes filled."""
        if not self.values and self.tui.planned is not None:
            self.form = self.tui.planned
            for name, widget in self._fields.all.items():
                widget.value = self.form.texts[name]
        self.tui.planned = self.form
        self._arrange()
        self._fields.show_only([field.name for field in self.form.fields()])
        self._fields.focus_field("model" if self.form.pipeline != "simulated" else "inputs")
        self._changed()
        self.call_after_refresh(self.redraw)
        app = self.app
        threading.Thread(target=self._scan, args=(app,), name="models", daemon=True).start()

    def on_resize(self) -> None:
        """Another size, another arrangement."""
        self._arrange()
        self.call_after_refresh(self.redraw)

    def _arrange(self) -> None:
        width, height = self.app.size
        beside = width >= BESIDE
        self._body.styles.layout = "horizontal" if beside else "vertical"
        self._fields.styles.width = SIDE if beside else "1fr"
        self._fields.styles.height = "1fr" if beside else max((height - 2) // 2, min(LEAST_FORM, height - 2))
        self._page.display = beside or height > LEAST_FORM + 4

    def _scan(self, app: App[Any]) -> None:
        """In a thread: the models on this machine."""
        from llava_tui import models

        try:
            found = models.scan()
        except OSError:
            found = list(models.PRESETS)
        if app.is_running:
            app.call_later(self._scanned, found)

    def _scanned(self, found: list[ModelEntry]) -> None:
        self._models = found
        field = self._fields.all["model"]
        if isinstance(field, TextField):
            field.known.names = [entry.name for entry in found if not entry.problem]

    # --- what is typed ----------------------------------------------------------------------------------------------

    @on(FieldChanged)
    def _typed(self, event: FieldChanged) -> None:
        if self.form.type(event.name, event.text):
            if event.name == "pipeline":
                for name, widget in self._fields.all.items():
                    widget.value = self.form.texts[name]
            self._fields.show_only([field.name for field in self.form.fields()])
            self._changed()

    def _changed(self) -> None:
        """Says at once whether it can be a plan; looks at model and inputs when the typing rests."""
        from llava_tui.plan import PlanError

        if self._said[0] and not self.starting:
            self._said = ("", TEXT)
        before, self.problem = self.plan, ""
        try:
            self.plan = self.form.plan()
        except PlanError as error:
            self.plan, self.problem = None, str(error)
            self._fields.mark_wrong(self.form.wrong(error))
        else:
            self._fields.mark_wrong("")
        if self.plan != before or self.prepared is None:
            self.prepared, self._estimate = None, None
            self._asked += 1
            if self._rest is not None:
                self._rest.stop()
            if self.plan is not None:
                self._rest = self.set_timer(AT_REST_S, self._check)
        self.redraw()

    def _check(self) -> None:
        """One at a time, in a thread."""
        self._rest = None
        if self.plan is None or self._checking or self.starting:
            return
        self._checking = True
        work = threading.Thread(
            target=self._work, args=(self.app, self.plan, self._asked), name="check-plan", daemon=True
        )
        work.start()

    def _work(self, app: App[Any], plan: Plan, asked: int) -> None:
        from llava_tui.plan import PlanError
        from llava_tui.session import store
        from llava_tui.session.reader import SessionError
        from llava_tui.starting import prepared_aside
        from llava_tui.tui.estimate import estimate

        try:
            if self._sessions is None:
                try:
                    self._sessions = store.list_sessions(self.folder)
                except SessionError:
                    self._sessions = []
            found = estimate(plan, self._sessions)
            if app.is_running:
                app.call_later(self._estimated, found, asked)
            prepared: Plan | str = prepared_aside(plan)
        except PlanError as error:
            prepared = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the form goes on
            prepared = f"the plan could not be checked: {error}"
        if app.is_running:
            app.call_later(self._checked, prepared, asked)

    def _estimated(self, found: Estimate, asked: int) -> None:
        if asked == self._asked and self.is_attached:
            self._estimate = found
            self.redraw()

    def _checked(self, prepared: Plan | str, asked: int) -> None:
        self._checking = False
        if not self.is_attached:
            return
        if asked != self._asked:
            self._check()
            return
        self.take(prepared)

    def take(self, prepared: Plan | str) -> None:
        from llava_tui.plan import PlanError

        if isinstance(prepared, str):
            self.problem = prepared
            self._fields.mark_wrong(self.form.wrong(PlanError(prepared)))
        else:
            self.prepared = prepared
        self.redraw()

    # --- drawing ----------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Heading, plan and footer; what did not change paints nothing."""
        from llava_tui.tui.widgets.plan_page import Planned, draw_planned

        heading, page = self.query_one("#heading", LineCanvas), self._page
        heading.show([self._heading(heading.size.width)])
        here = self._fields.focused_name()
        field = self._fields.all[here].field if here else None
        plan = self.prepared or self.plan
        planned = Planned(
            help=f"{field.title}: {field.help}" if field is not None else "",
            plan=plan,
            problem=self.problem,
            checked=self.prepared is not None,
            estimate=self._estimate,
            command=self._command(plan) if plan is not None else "",
            toml=(plan.to_toml().strip() or "# every field at its default") if plan is not None else "",
            left_out=", ".join(self.form.left_out[:5]),
        )
        width = page.size.width
        if self.app.size.width >= BESIDE:
            lines: list[Line] = [[("│", "track"), *line] for line in draw_planned(planned, width - 1)]
            lines += [[("│", "track")]] * (page.size.height - len(lines))
        else:
            lines = [[("─" * width, "track")], *draw_planned(planned, width)]
        page.set_lines(lines)
        self.draw_footer()

    def _heading(self, width: int) -> Line:
        said, style = self._said
        return fit(
            [(" New run ", "strong"), (" ", TEXT), (said or f"in {self.folder}", style if said else "dim")], width
        )

    def say(self, text: str, style: str = "accent") -> None:
        """In the heading, until something is typed."""
        self._said = (" ".join(text.split()), style)
        heading = self.query_one("#heading", LineCanvas)
        heading.show([self._heading(heading.size.width)])

    def on_descendant_focus(self) -> None:
        """The help is of the field that is edited."""
        self.redraw()

    # --- keys -------------------------------------------------------------------------------------------------------

    def do_field_on(self) -> None:
        """The next field."""
        self._fields.step(1)

    def do_field_back(self) -> None:
        """The field before."""
        self._fields.step(-1)

    def do_plan_up(self) -> None:
        """The plan a page up."""
        self._page.page(-1)

    def do_plan_down(self) -> None:
        """The plan a page down."""
        self._page.page(1)

    @on(Input.Submitted)
    def _entered(self) -> None:
        if not self._pick():
            self.do_field_on()

    def do_choose(self) -> None:
        """What there is for the field."""
        if not self._pick():
            self.say("type it: there is nothing to choose from", "dim")

    def _pick(self) -> bool:
        """Whether there is something to pick from."""
        name = self._fields.focused_name()
        widget = self._fields.all.get(name)
        if not isinstance(widget, TextField):
            return False
        if name == "model":
            entries = [(entry.name, _told(entry)) for entry in self._models or []]
        else:
            entries = [(choice, "") for choice in widget.field.choices]
        if not entries:
            return False

        def picked(value: str | None) -> None:
            if value is not None:
                widget.value = value
                widget.cursor_position = len(value)

        several = widget.field.several
        self.app.push_screen(Picker(widget.field.title, entries, widget.value, several=several), picked)
        return True

    def do_copy_command(self) -> None:
        """The plan as a command line, into the clipboard of whoever looks."""
        self._copy("the command line")

    def do_copy_plan(self) -> None:
        """The plan as TOML."""
        self._copy("the plan as TOML")

    def _copy(self, what: str) -> None:
        plan = self.prepared or self.plan
        if plan is None:
            self.say(f"there is no plan to copy: {self.problem}", "bad")
            return
        self.app.copy_to_clipboard(self._command(plan) if "command" in what else plan.to_toml())
        self.say(f"{what} was copied, if the terminal takes it (OSC 52)", "good")

    def _command(self, plan: Plan) -> str:
        from llava_tui.command_line import quoted

        return quoted(self.words(plan))


def _told(entry: ModelEntry) -> str:
    """What is said of a model beside its name."""
    from llava_tui import units
    from llava_tui.session.reader import safe_text

    family = f"{entry.model_type} ({entry.family})" if entry.model_type else ""
    parts = [entry.source, family, units.size(entry.bytes) if entry.bytes else ""]
    return safe_text(" · ".join(part for part in (*parts, entry.problem or entry.note) if part), 200)
