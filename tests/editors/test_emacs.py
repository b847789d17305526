"""The client for Emacs 30. Most tests run a script in batch mode, and some type in a terminal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.editors.conftest import REPOSITORY
from tests.editors.editors import EDITORS, Stopwatch, install
from tests.editors.package import Package, package, put_uv
from tests.editors.terminal import Terminal, terminal
from tests.editors.wire import Wire
from tests.editors.workspace import AREA, HARD, MULTIPLY, SECONDS, SETTINGS, UNSURE, fill

PACKAGE = REPOSITORY / "editors" / "emacs"
HERE = Path(__file__).parent
GHOST = re.compile(re.escape(AREA) + r"\w")  # the typed text, and the first character of the ghost text
GHOST_REST = re.compile(re.escape(AREA) + r"(.*)")


@pytest.fixture(scope="session")
def packages() -> Path:
    """Install Emacs. Return the folder of the other packages with which the client is tested, such as company."""
    return install("emacs") / "lisp"


def lisp(text: str | Path) -> str:
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


LENIENT = "(setq repoformer-settings '({}))\n".format(
    " ".join(f":{name} {json.dumps(value)}" for name, value in SETTINGS.items())
)


def configuration(program: Path) -> str:
    return f"(setq repoformer-program '({lisp(program)}))\n{LENIENT}"


@pytest.fixture
def batch(packages: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that runs a script in batch mode and returns its output.

    An error in the script fails the test.
    """

    def batch(script: str, wire: Wire = wire) -> str:
        program = wire.script(tmp_path / "repoformer-lsp")
        story = tmp_path / "story.el"
        story.write_text(
            f";;; -*- lexical-binding: t -*-\n(require 'repoformer)\n{configuration(program)}"
            f"(load {lisp(HERE / 'batch.el')} nil t)\n(setq test-seconds {SECONDS})\n{script}\n",
            "utf-8",
        )
        command = ["emacs", "-Q", "--batch", "-L", str(PACKAGE), "-l", str(story)]
        done = subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return batch


def check_same(wire: Wire, file: Path, kept: Path) -> None:
    assert wire.text(file) == kept.read_text("utf-8")


def test_clean(packages: Path) -> None:
    command = ["emacs", "-Q", "--batch", "-L", str(PACKAGE)]
    for each in sorted(packages.iterdir()):
        command += ["-L", str(each)]
    command += ["-l", str(HERE / "lint.el"), str(PACKAGE / "repoformer.el")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_type_accept_word_line_all_undo(batch: Callable[[str], str], wire: Wire, folder: Path, tmp_path: Path) -> None:
    batch(f"""
(test-open "arithmetic.py")
(let ((before (concat (test-text) {lisp(MULTIPLY)})) whole line word)
  (test-type {lisp(MULTIPLY)})
  (setq whole (test-ghost)
        line (concat "\\n" (nth 1 (split-string whole "\\n")))
        word (concat "\\n    " (car (split-string whole))))
  (test-equal "a" (repoformer--part "a\n\nb" 'line) "the first line")
  (test-equal "\n\nb" (repoformer--part "\n\nb\nc" 'line) "an empty line and the next one")
  (test-command #'repoformer-accept-line)
  (test-equal (concat before line) (test-text) "a line")
  (undo-boundary) (undo)
  (test-equal before (test-text) "one undo takes the line back")

  (goto-char (point-max))
  (test-type " ") (test-command #'delete-char -1) (repoformer--ask (current-buffer) 2)
  (test-ghost)
  (test-command #'repoformer-accept-word)
  (test-equal (concat before word) (test-text) "a word")
  (test-equal (substring whole (length word)) (repoformer--rest) "the rest stays on screen")
  (test-command #'repoformer-accept)
  (test-equal (concat before whole) (test-text) "all of it")
  (test-equal nil repoformer-ghost-mode "the keys are free again")
  (undo-boundary) (undo)
  (test-equal (concat before word) (test-text) "one undo takes the rest back")
  (test-same {lisp(tmp_path / "kept")}))
""")
    check_same(wire, folder / "arithmetic.py", tmp_path / "kept")
    assert wire.encoding() == "utf-32"
    assert len(wire.sent("textDocument/didShowCompletion")) == 2
    assert wire.sent("textDocument/didPartiallyAcceptCompletion")
    assert {params["command"] for params in wire.sent("workspace/executeCommand")} == {"repoformer.accepted"}


def test_typing_through_away_and_dismiss(batch: Callable[[str], str], wire: Wire, folder: Path, tmp_path: Path) -> None:
    batch(f"""
(test-open "beds.py")
(test-type {lisp(AREA)})
(let ((whole (test-ghost)))
  (dotimes (typed 3)
    (test-command #'insert (substring whole typed (1+ typed)))
    (test-equal (substring whole (1+ typed)) (repoformer--rest) "typing through"))
  (test-command #'repoformer-accept)
  (test-equal t (string-suffix-p (concat {lisp(AREA)} whole) (test-text)) "accepted after typing through")
  (undo-boundary) (undo)
  (delete-region (- (point-max) 3) (point-max))
  (goto-char (point-max))
  (repoformer-trigger)
  (test-ghost)
  (test-command #'insert "#")
  (test-equal nil repoformer--overlay "ghost text that does not fit goes away")
  (test-command #'delete-char -1)
  (repoformer-trigger)
  (test-ghost)
  (test-command #'repoformer-dismiss)
  (test-equal nil repoformer--overlay "dismissed")
  (test-same {lisp(tmp_path / "kept")}))
""")
    check_same(wire, folder / "beds.py", tmp_path / "kept")


def test_text_right_of_the_cursor(batch: Callable[[str], str]) -> None:
    """A suggestion is removed if the text right of the cursor changes, because accepting it could then double code."""
    batch(f"""
(test-open "beds.py")
(test-type {lisp(AREA)})
(test-ghost)
(let ((before (test-text)))
  (test-command #'backward-char)
  (test-no-suggestion "the cursor went left")
  (test-equal before (test-text) "nothing was doubled"))
(erase-buffer)
(test-command #'insert "foo")
(test-suggest "(x)")
(test-key ?\\()
(test-equal "x)" (repoformer--rest) "typed through")
(test-command #'repoformer-accept)
(test-equal "foo(x)" (buffer-substring (pos-bol) (pos-eol)) "accepted")

(electric-pair-local-mode)
(test-command #'insert "\nfoo")
(test-suggest "(x)")
(test-key ?\\()
(test-equal "foo()" (buffer-substring (pos-bol) (pos-eol)) "a pair")
(test-no-suggestion "the other half is right of the cursor")
(test-equal t (timerp repoformer--timer) "the server is asked again")

(test-suggest "x, y")                           ; in front of the other half
(test-key ?x)
(test-equal ", y" (repoformer--rest) "typed through in the middle of a line")
(test-command #'repoformer-accept-word)
(test-command #'repoformer-accept)
(test-equal "foo(x, y)" (buffer-substring (pos-bol) (pos-eol)) "accepted in the middle of a line")
(test-suggest ", z")
(test-key ?\\))
(test-equal "foo(x, y)" (buffer-substring (pos-bol) (pos-eol)) "over the other half")
(test-no-suggestion "less is right of the cursor")
""")


def test_dismissed_before_it_arrives(batch: Callable[[str], str], wire: Wire) -> None:
    batch(f"""
(test-open "beds.py")
(test-type {lisp(AREA)})
(repoformer-dismiss)
(test-until "the answer" (lambda () (= 0 (jsonrpc-continuation-count (repoformer--server)))))
(test-no-suggestion "the answer came too late")
""")
    assert wire.answers()[-1], "the answer has no item"


def test_cycle(batch: Callable[[str], str], wire: Wire) -> None:
    batch(f"""
(test-open "beds.py")
(test-type {lisp(AREA)})
(let ((first (test-ghost)) found)
  (test-equal 1 (length repoformer--items) "a pause brings one")
  (test-command #'repoformer-next)
  (test-until "the others" (lambda () repoformer--complete))
  (push (test-ghost) found)
  (dotimes (_ (1- (length repoformer--items)))
    (test-command #'repoformer-next)
    (push (test-ghost) found))
  (test-equal first (car found) "cycling through all items ends at the first one")
  (test-equal (length repoformer--items) (length (seq-uniq found)) "all items differ")
  (test-command #'repoformer-previous)
  (test-equal (nth 1 (append found found)) (test-ghost) "and backwards")
  (let ((before (test-text)) (chosen (test-ghost)))
    (test-command #'repoformer-accept)
    (test-equal (concat before chosen) (test-text) "what is on screen is accepted")))
""")
    assert [params["context"]["triggerKind"] for params in wire.asked()] == [2, 1]


def test_middle_of_a_line(batch: Callable[[str], str], wire: Wire, folder: Path, tmp_path: Path) -> None:
    batch(f"""
(test-open "names.py")
(goto-char (point-min))
(search-forward "len(")
(repoformer-trigger)
(let ((whole (test-ghost)))
  (test-command #'repoformer-accept)
  (test-equal (concat "names = [\\"one\\", \\"two\\", \\"three\\"]\\nprint(len(" whole "))\\n")
              (test-text) "the text is in place")
  (test-same {lisp(tmp_path / "kept")}))
""")
    check_same(wire, folder / "names.py", tmp_path / "kept")


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["unix", "dos"])
def test_hard_characters_before_the_cursor(
    batch: Callable[[str], str], wire: Wire, folder: Path, tmp_path: Path, ends: str
) -> None:
    lines = HARD.split("\n")
    file = folder / "hard.py"
    file.write_bytes("\n".join([*lines[:-1], ""]).replace("\n", ends).encode())
    batch(f"""
(set-language-environment "UTF-8")
(test-open "hard.py")
(test-type {lisp(lines[-1])})
(let ((whole (test-ghost)))
  (test-command #'repoformer-accept)
  (test-equal (concat {lisp(HARD)} whole) (test-text) "exactly")
  (save-buffer)                                 ; which may end the last line
  (test-same {lisp(tmp_path / "kept")}))
""")
    check_same(wire, file, tmp_path / "kept")
    written = file.read_bytes()
    assert written.count(b"\r\n") == (written.count(b"\n") if ends == "\r\n" else 0)


def test_why_shows_a_chunk_and_jumps_to_it(batch: Callable[[str], str]) -> None:
    batch(f"""
(repoformer-policy "always")
(test-open "beds.py")
(test-type {lisp(AREA)})
(test-ghost)
(repoformer-why)
(test-equal "*repoformer-why*" (buffer-name) "the document")
(dolist (said '("P(kept) " "(eager): shown." "fitted into the prompt" " ms" "evaluated tokens"))
  (goto-char (point-min))
  (search-forward said))
(goto-char (point-min))
(search-forward "other files were read")
(search-forward "shapes.py:")
(let ((line (string-to-number (thing-at-point 'word))))
  (push-button)
  (test-equal "shapes.py" (buffer-name) "the jump")
  (test-equal line (line-number-at-pos) "its line"))
""")


def test_pause_policy_and_status(batch: Callable[[str], str], wire: Wire) -> None:
    printed = batch("""
(test-open "beds.py")
(test-equal "repoformer:ready" (test-state) "ready")
(repoformer-pause)
(test-equal "repoformer:paused" (test-state) "paused")
(repoformer-resume)
(repoformer-pause-language)
(test-equal "repoformer:off here" (test-state) "paused for the language")
(repoformer-resume)
(repoformer-policy "never")
(test-until "policy" (lambda () (repoformer--uses-p :policy "never")))
(repoformer-suggest "careful")
(test-until "suggest" (lambda () (repoformer--uses-p :suggest "careful")))
(test-equal '("Never" "Those that you are very likely to keep") (test-selected) "the menu shows the current values")
(repoformer-status)
""")
    assert "policy never, suggest careful" in printed
    assert len(wire.sent("initialize")) == 1, "another server was started"
    states = [status["state"] for status in wire.received("repoformer/status")]
    assert "off" in states and states[-1] == "ready", "the server does not apply the setting"
    sent = [params["settings"]["repoformer"] for params in wire.sent("workspace/didChangeConfiguration")[-6:]]
    changes: list[dict[str, object]]
    changes = [
        {"enabled": False},
        {},
        {"disabledLanguages": ["python"]},
        {},
        {"policy": "never"},
        {"policy": "never", "suggest": "careful"},
    ]
    assert sent == [SETTINGS | change for change in changes]


def test_careful_hides_a_suggestion_unless_it_is_requested(batch: Callable[[str], str]) -> None:
    batch(f"""
(test-open "beds.py")
(test-type {lisp(UNSURE)})
(test-ghost)
(repoformer-suggest "careful")
(test-until "suggest" (lambda () (repoformer--uses-p :suggest "careful")))
(repoformer--ask (current-buffer) 2)
(test-until "the answer" (lambda () (= 0 (jsonrpc-continuation-count (repoformer--server)))))
(test-no-suggestion "it is hidden")
(save-window-excursion
  (repoformer-why)
  (dolist (said '("(careful): hidden."
                  "Nothing was suggested: not shown: the estimated probability that you keep it is "))
    (goto-char (point-min))
    (search-forward said)))
(repoformer-trigger)
(test-ghost)
(repoformer-why)
(goto-char (point-min))
(search-forward "(careful): shown, because you requested it.")
""")


def test_mode_line_does_not_copy_the_buffer(batch: Callable[[str], str]) -> None:
    batch("""
(test-open "beds.py")
(repoformer-pause-language)
(let ((copies 0))
  (advice-add 'eglot--TextDocumentItem :before (lambda () (cl-incf copies)))
  (dotimes (_ 5) (test-equal "repoformer:off here" (test-state) "paused for the language"))
  (test-equal 0 copies "copies"))
""")


def test_settings_of_a_person_and_of_a_project(batch: Callable[[str], str], wire: Wire, folder: Path) -> None:
    (folder / ".dir-locals.el").write_text(
        "((python-mode . ((eglot-workspace-configuration\n"
        '  . (:repoformer (:policy "never" :serverUrl "http://example.com" :model "theirs.gguf"))))))\n'
    )
    batch("""
(test-open "beds.py")
(test-until "the project's" (lambda () (equal (plist-get (repoformer--status (repoformer--server)) :policy) "never")))
(eglot-signal-didChangeConfiguration (repoformer--server))
(setopt repoformer-settings (append '(:chunks 3) repoformer-settings))
(setq-local repoformer-settings '(:chunks 4))   ; as of a directory-local variable
(repoformer-reconfigure)
(setq eglot-workspace-configuration nil)
(repoformer-reconfigure)
(jsonrpc-request (repoformer--server) :repoformer/why (list :textDocument (eglot--TextDocumentIdentifier)))
""")
    sent = [params["settings"]["repoformer"] for params in wire.sent("workspace/didChangeConfiguration")[-4:]]
    # A project's file can set the policy, but not the address that receives code or the model file that is loaded.
    project = {**SETTINGS, "policy": "never"}
    assert sent == [project, {**project, "chunks": 3}, {"policy": "never", "chunks": 4}, {"chunks": 4}]
    asked = {m["id"] for _, m in wire.messages("server") if m.get("method") == "workspace/configuration"}
    answers = [m["result"] for _, m in wire.messages("editor") if "method" not in m and m["id"] in asked]
    assert [project] in answers


def test_what_the_server_does_not_offer_is_left_alone(batch: Callable[[str], str]) -> None:
    batch("""
(require 'company nil t)
(defvar company-backends '(company-theirs))
(defvar company-tooltip-align-annotations nil)
(defun facilities ()
  (list (xref-find-backend) flymake-mode flymake-diagnostic-functions eldoc-documentation-strategy
        eldoc-documentation-functions imenu-create-index-function company-backends))
(find-file "beds.py")
(let ((before (facilities)) (beds (current-buffer)))
  (test-open "beds.py")
  (test-equal before (facilities) "the file that was open")
  (find-file "names.py")
  (test-equal t (and repoformer-mode (eglot-managed-p)) "served without being asked for")
  (test-equal before (facilities) "the project's next file")
  (eglot-shutdown (repoformer--server))
  (test-equal before (facilities) "afterwards")

  (setq-local eglot-server-programs `((python-mode . ,repoformer-program)))
  (eglot-ensure)
  (run-hooks 'post-command-hook)
  (test-until "another server" #'eglot-managed-p)
  (switch-to-buffer beds)
  (repoformer-ensure)
  (run-hooks 'post-command-hook)
  (test-equal nil (repoformer--server) "it stays the buffer's server")
  (test-equal '(eglot t (eglot-flymake-backend) eldoc-documentation-compose) (seq-take (facilities) 4) "and has it all")
  (eglot-shutdown (eglot-current-server)))
""")


def test_modes_that_are_not_served(batch: Callable[[str], str]) -> None:
    printed = batch("""
(find-file "notes.el")
(let ((before post-command-hook))
  (repoformer-ensure)
  (test-equal before post-command-hook "nothing is started"))
(test-equal nil (local-variable-p 'eglot-server-programs) "for no buffer")
(setq repoformer-program '("no-such-program"))
(repoformer-ensure)
(define-derived-mode their-mode python-mode "Theirs")
(test-equal t (with-temp-buffer (their-mode) (and (repoformer--serves-p) t)) "what is derived is served")
""")
    assert "There is no program" not in printed


def test_outside_of_a_project(batch: Callable[[str], str], wire: Wire, home: dict[str, str]) -> None:
    """The folder of a file outside of a project is not indexed, because it is often the home directory."""
    (Path(home["HOME"]) / "beds.py").write_text("width = 3.0\nheight = 4.0\n")
    batch("""
(test-open "~/beds.py")
(test-type "area = width * ")
(test-ghost)
""")
    started = wire.sent("initialize")[0]
    assert [started[name] for name in ("rootPath", "rootUri", "workspaceFolders")] == [None, None, None]


def test_server_killed(batch: Callable[[str], str], wire: Wire) -> None:
    printed = batch(f"""
(test-open "beds.py")
(accept-process-output nil 4)                   ; eglot-autoreconnect starts one that has lived again
(let ((before (repoformer--server)))
  (test-kill {lisp(wire.record.with_suffix(".pid"))})
  (test-until "noticed" (lambda () (not (jsonrpc-running-p before))))
  (test-command #'insert "x = 1")
  (test-equal t (string-suffix-p "x = 1" (test-text)) "typing is not blocked")
  (test-until "started again" (lambda () (let ((now (repoformer--server))) (and now (not (eq now before)))))))
""")
    assert len(re.findall("Reconnected", printed)) == 1


def test_no_model(batch: Callable[..., str], tmp_path: Path) -> None:
    printed = batch(
        """
(switch-to-buffer (find-file-noselect "beds.py"))
(repoformer-ensure)
(run-hooks 'post-command-hook)
(test-until "the state" (lambda () (and (bound-and-true-p repoformer-mode)
                                        (equal (test-state) "repoformer:error"))))
(goto-char (point-max))
(dotimes (_ 3)
  (test-type "x = 1\\n")
  (accept-process-output nil 0.5))
(test-equal t (string-suffix-p "x = 1\\nx = 1\\nx = 1\\n" (test-text)) "typing is not blocked")
""",
        wire=Wire(tmp_path / "none.jsonl", tmp_path / "no.gguf"),
    )
    assert printed.count("no model at") == 1


def test_a_workspace_that_takes_long_to_index(batch: Callable[[str], str], folder: Path, wire: Wire) -> None:
    fill(folder)
    batch(f"""
(switch-to-buffer (find-file-noselect "beds.py"))
(repoformer-ensure)
(run-hooks 'post-command-hook)
(test-until "the percentage" (lambda () (and (bound-and-true-p repoformer-mode)
                                             (string-match-p "indexing [0-9]+%" (test-state)))))
(goto-char (point-max))
(test-type {lisp(AREA)})
(test-equal t (string-suffix-p {lisp(AREA)} (test-text)) "typing is not blocked")
(test-ghost)
""")
    indexing = [status["percent"] for status in wire.received("repoformer/status") if status["state"] == "indexing"]
    assert len(indexing) > 1 and indexing == sorted(indexing)


def test_log_and_doctor(batch: Callable[[str], str]) -> None:
    batch("""
(test-open "beds.py")
(repoformer-log)
(goto-char (point-min))
(search-forward "client: Eglot")
(setq repoformer-program (cons "env" repoformer-program)) ; as uvx has what it is to run for an argument
(repoformer-doctor)
(with-current-buffer "*repoformer-doctor*"
  (test-until "the doctor" (lambda () (goto-char (point-min)) (search-forward "llama.cpp" nil t))))
""")


def test_no_program(batch: Callable[[str], str]) -> None:
    printed = batch("""
(setq repoformer-program '("no-such-program"))
(find-file "beds.py")
(repoformer-ensure)
(find-file "names.py")
(repoformer-ensure)
""")
    assert printed.count("There is no program") == 1


@contextmanager
def in_terminal(
    home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path, init: str, file: str
) -> Iterator[Terminal]:
    program = wire.script(tmp_path / "repoformer-lsp")
    start = tmp_path / "init.el"
    start.write_text(
        f"(require 'repoformer)\n{configuration(program)}"
        "(setq inhibit-startup-screen t make-backup-files nil auto-save-default nil create-lockfiles nil)\n"
        "(menu-bar-mode -1)\n(load-theme 'modus-vivendi)\n(setq eglot-ignored-server-capabilities '())\n"
        "(setq mode-line-format-right-align nil suggest-key-bindings nil)\n"
        '(setq-default mode-line-format \'(" %b  %l:%c " mode-line-modes))\n'
        f"(add-hook 'python-mode-hook #'repoformer-ensure)\n{init}\n"
    )
    command = ["emacs", "-nw", "-Q", "-L", str(PACKAGE), "-l", str(start), file]
    with terminal(command, env=home, cwd=folder, socket=tmp_path / "tmux") as screen:
        yield screen


# With this threshold, the decision is to retrieve, because the probability of every model is higher.
ASKED = "(setq repoformer-settings (append '(:threshold 0.05) repoformer-settings))"


@pytest.mark.usefixtures("cold")
def test_on_screen(
    packages: Path,
    home: dict[str, str],
    folder: Path,
    wire: Wire,
    tmp_path: Path,
    keep: Callable[[Callable[[], Path], str], None],
) -> None:
    watch = Stopwatch(EDITORS["emacs"].name)
    with in_terminal(home, folder, wire, tmp_path, ASKED, "beds.py") as screen:
        screen.wait(lambda text: "beds.py" in text, "the file")
        screen.press("M->")
        screen.type(AREA)
        screen.wait(GHOST.search, "ghost text")
        watch.lap("opening a file")
        screen.press("C-g")
        screen.wait(lambda text: not GHOST.search(text), "a line without ghost text")
        screen.press("BSpace", "BSpace")
        screen.wait(lambda text: AREA[:-2] in text and AREA[:-1] not in text, "the shortened text")
        watch.start()
        screen.type(AREA[-2])
        screen.wait(re.compile(re.escape(AREA[:-1]) + r"\S").search, "ghost text")
        watch.lap("a key")
        screen.type(AREA[-1])
        screen.wait(GHOST.search, "ghost text")
        screen.wait(lambda text: "repoformer:ready" in text, "that it is ready")
        keep(lambda: screen.picture(tmp_path / "ghost.png"), "emacs.png")
        screen.press("M-x")
        screen.type("repoformer-why")
        screen.press("Enter")
        screen.wait(lambda text: "Why this completion" in text, "the page of the completion")
        screen.press("C-x", "1")
        screen.wait(lambda text: "shapes.py:" in text, "the code that was read")
        keep(lambda: screen.picture(tmp_path / "why.png"), "emacs-why.png")
        told = len(wire.sent("textDocument/didFocus"))
        screen.press("C-x", "b", "Enter")
        screen.wait(
            lambda text: len(wire.sent("textDocument/didFocus")) == told + 1, "that the server knows what is in front"
        )
        assert wire.front() == (folder / "beds.py").as_uri()
        screen.press("BSpace")
        screen.wait(lambda text: AREA not in text, "the shortened text")
        screen.type(AREA[-1])
        shown = GHOST_REST.search(screen.wait(GHOST.search, "ghost text"))
        assert shown
        rest = shown[1].rstrip()
        screen.type(rest[0])
        screen.wait(lambda text: AREA + rest in text, "the rest after a typed character")
        screen.press("M-Right")
        screen.press("Tab")
        screen.press("C-e")
        screen.type("#")
        screen.wait(lambda text: AREA + rest + "#" in text, "the whole accepted text")


def test_two_windows(packages: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path) -> None:
    with in_terminal(home, folder, wire, tmp_path, "", "beds.py") as screen:
        screen.wait(lambda text: "repoformer:ready" in text, "that it is ready")
        screen.press("M->")
        screen.type(AREA)
        shown = GHOST.search(screen.wait(GHOST.search, "ghost text"))
        assert shown
        screen.press("C-x", "3")
        both = screen.wait(lambda text: text.count(AREA) == 2, "both windows")
        assert both.count(shown[0]) == 1, "ghost text is in both windows"
        screen.press("M-x")
        screen.type("repoformer-trig")
        screen.wait(lambda text: "M-x repoformer-trig" in text, "the minibuffer")
        assert screen.screen().count(shown[0]) == 1, "ghost text disappears when the minibuffer is entered"
        screen.press("C-g")
        screen.wait(lambda text: "Quit" in text, "Quit, after which the minibuffer is closed")
        assert screen.screen().count(shown[0]) == 1
        screen.press("C-x", "o")
        screen.wait(lambda text: shown[0] not in text, "the first window without ghost text")


PAGE = (REPOSITORY / "docs" / "editors" / "emacs.md").read_text("utf-8")


@pytest.mark.parametrize("lines", re.findall("```elisp\n(.*?)```", PAGE.partition("## Use")[0], re.DOTALL))
def test_lines_of_the_page(
    packages: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path, lines: str
) -> None:
    """Each block of lines that `emacs.md` has for an init file works in `~/.emacs`.

    Emacs reads this file first, and ignores the other init files.
    """
    place = Path(home["HOME"])
    (place / "repoformer-lsp").symlink_to(REPOSITORY)
    (place / ".emacs").write_text(LENIENT + lines)
    programs = tmp_path / "programs"
    programs.mkdir()
    wire.script(programs / "repoformer-lsp")
    env = {**home, "PATH": f"{programs}:{home['PATH']}"}
    with terminal(["emacs", "-nw", "beds.py"], env=env, cwd=folder, socket=tmp_path / "tmux") as screen:
        screen.wait(lambda text: "repoformer:" in text, "the server in the mode line")
        screen.press("M->")
        screen.type(AREA)
        screen.wait(GHOST.search, "ghost text")


@pytest.mark.parametrize("beside", ["company", "corfu", "completion-preview"])
def test_beside_other_completion(
    packages: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path, beside: str
) -> None:
    paths = "".join(f"(add-to-list 'load-path {lisp(package)})" for package in sorted(packages.iterdir()))
    init = {
        "company": "(require 'company) (add-hook 'python-mode-hook #'company-mode)",
        "corfu": "(require 'corfu) (setq corfu-auto t) (add-hook 'python-mode-hook #'corfu-mode)",
        "completion-preview": "(add-hook 'python-mode-hook #'completion-preview-mode)",
    }[beside]
    with in_terminal(home, folder, wire, tmp_path, paths + init, "beds.py") as screen:
        screen.wait(lambda text: "repoformer:ready" in text, "that it is ready")
        screen.press("M->")
        screen.type(AREA)
        shown = GHOST_REST.search(screen.wait(GHOST.search, "ghost text"))
        assert shown
        screen.press("Tab")
        screen.press("End")
        screen.type("#")
        accepted = screen.wait(lambda text: AREA + shown[1].rstrip() + "#" in text, "the accepted text")
        assert "error" not in accepted.lower()


@pytest.fixture
def served(interim: Path, home: dict[str, str], tmp_path: Path) -> Iterator[Package]:
    """Serve what `repoformer-install` installs, and set the variables for it in `home`."""
    with package(tmp_path, interim.read_bytes()) as state:
        home.update(state.environment, PATH=f"{put_uv(tmp_path / 'uv').parent}:{home['PATH']}")
        yield state


def story(packages: Path, home: dict[str, str], folder: Path, path: Path, script: str) -> str:
    """Run a script in Emacs in batch mode, for a user without the server, and return its output."""
    settings = (
        f"(require 'repoformer)\n{LENIENT}(load {lisp(HERE / 'batch.el')} nil t)\n(setq test-seconds {SECONDS})\n"
    )
    path.write_text(f";;; -*- lexical-binding: t -*-\n{settings}{script}\n", "utf-8")
    emacs = shutil.which("emacs") or "emacs"
    command = [emacs, "-Q", "--batch", "-L", str(PACKAGE), "-l", str(path)]
    done = subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_install(packages: Path, home: dict[str, str], folder: Path, served: Package, tmp_path: Path) -> None:
    printed = story(
        packages, home, folder, tmp_path / "story.el", f"""
(switch-to-buffer (find-file-noselect "beds.py"))
(repoformer-ensure)
(let ((repoformer-package "no-such-server"))
  (repoformer-install)
  (test-until "a failure" (lambda () (not repoformer--installation))))
(repoformer-install)
(test-until "progress" (lambda () (string-match-p "installing [0-9]+%%" repoformer--progress)))
(test-equal 'user-error (condition-case problem (repoformer-install) (error (car problem))) "one at a time")
(test-until "the end" (lambda () (not repoformer--installation)))
(test-equal "" repoformer--progress "the mode line")
(test-equal (expand-file-name "server/bin/repoformer-lsp" repoformer-directory) (car (repoformer--command)) "used")
(test-open "beds.py")
(test-type {lisp(AREA)})
(test-ghost)
""")  # fmt: skip
    assert "The server is not installed yet; ‘M-x repoformer-install’" in printed.replace("`", "‘").replace("'", "’")
    assert "no-such-server cannot be installed" in printed and "Correct `repoformer-package'" in printed
    assert re.search(r"Downloading the model: \d+ of \d+ MB \d+%", printed)
    assert "The server is installed. Open a file and type." in printed
    assert list(Path(home["XDG_CACHE_HOME"]).rglob(served.card.file)), "the model is not installed"


def test_install_without_python(packages: Path, home: dict[str, str], folder: Path, tmp_path: Path) -> None:
    home["PATH"] = str(tmp_path / "nothing")
    script = "(princ (condition-case problem (repoformer-install) (user-error (cadr problem))))"
    printed = story(packages, home, folder, tmp_path / "story.el", script)
    assert "There is no Python on this machine.  Install Python 3.10 or later" in printed
