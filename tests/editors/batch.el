;;; batch.el --- Functions for the scripts of tests  -*- lexical-binding: t; -*-

;; A test loads this file, and then its own script.  Batch mode has no command
;; loop, so scripts call commands by `test-command', which does the same.

(require 'cl-lib)

(setq make-backup-files nil
      auto-save-default nil
      create-lockfiles nil
      eglot-sync-connect 60
      vc-handled-backends '(Git))

(defvar test-seconds 120
  "Time limit of a wait in seconds; each test sets it.")

(defun test-until (what holds)
  "Wait until HOLDS returns non-nil; after the time limit, fail with WHAT."
  (let ((end (+ (float-time) test-seconds)) value)
    (while (not (setq value (funcall holds)))
      (when (> (float-time) end)
        (error "Never: %s; buffer %S" what (buffer-string)))
      (accept-process-output nil 0.05))
    value))

(defun test-command (command &rest arguments)
  "Run COMMAND with ARGUMENTS as the command loop does."
  (undo-boundary)
  (apply command arguments)
  (setq this-command command)
  (run-hooks 'post-command-hook))

(defun test-type (text)
  "Insert TEXT, and send an automatic request without the usual pause."
  (test-command #'insert text)
  (repoformer--ask (current-buffer) 2))

(defun test-open (name)
  "Visit the file NAME and wait for its server to be ready."
  (switch-to-buffer (find-file-noselect name))
  (repoformer-ensure)
  (run-hooks 'post-command-hook)
  (test-until "ready"
              (lambda ()
                (and (bound-and-true-p repoformer-mode)
                     (equal (plist-get (repoformer--status (repoformer--server)) :state) "ready"))))
  (goto-char (point-max)))

(defun test-suggest (text)
  "Show TEXT as if the server had suggested it at point."
  (repoformer--answered
   (current-buffer) repoformer--request (repoformer--now) 2 nil
   (list :items
         (vector (if (eolp)
                     (list :insertText (concat (buffer-substring (pos-bol) (point)) text)
                           :range (list :start (eglot--pos-to-lsp-position (pos-bol))
                                        :end (eglot--pos-to-lsp-position)))
                   (list :insertText text
                         :range (list :start (eglot--pos-to-lsp-position)
                                      :end (eglot--pos-to-lsp-position)))))))
  (test-equal text (repoformer--rest) "suggested"))

(defun test-key (character)
  "Insert CHARACTER as its key does, so that other modes react to the key."
  (let ((last-command-event character))
    (test-command #'self-insert-command 1)))

(defun test-no-suggestion (what)
  "Fail with WHAT if a suggestion is visible or can be accepted."
  (test-equal nil repoformer--overlay what)
  (test-equal nil repoformer-ghost-mode what)
  (test-equal 'user-error (car (condition-case problem (repoformer-accept) (error problem))) what))

(defun test-ghost ()
  "Wait for ghost text and return it."
  (test-until "ghost text"
              (lambda ()
                (and repoformer--overlay
                     (overlay-get repoformer--overlay 'after-string)
                     (repoformer--rest)))))

(defun test-text ()
  "Return the text of the buffer."
  (buffer-substring-no-properties (point-min) (point-max)))

(defun test-state ()
  "Return the text of the client in the mode line."
  (substring-no-properties (nth 1 (repoformer--lighter))))

(defun test-selected ()
  "Return the names of the selected entries of the menu."
  (let (found)
    (cl-labels ((walk (map)
                  (map-keymap
                   (lambda (_key entry)
                     (pcase entry
                       (`(menu-item ,name ,does . ,properties)
                        (cond ((keymapp does) (walk does))
                              ((eval (cdr (plist-get properties :button)) t) (push name found))))))
                   map)))
      (walk repoformer-mode-menu))
    (nreverse found)))

(defun test-kill (file)
  "Kill the process whose id is in FILE, as the system does to free memory."
  (signal-process (with-temp-buffer
                    (insert-file-contents file)
                    (string-to-number (buffer-string)))
                  9))

(defun test-equal (expected found what)
  "Fail with WHAT unless EXPECTED equals FOUND."
  (unless (equal expected found)
    (error "%s: expected %S, found %S" what expected found)))

(defun test-same (file)
  "Send pending changes to the server, and write the buffer's text to FILE."
  (eglot--signal-textDocument/didChange)
  (accept-process-output nil 0.3)
  (let ((text (test-text)) (coding-system-for-write 'utf-8-unix))
    (with-temp-file file (insert text))))
