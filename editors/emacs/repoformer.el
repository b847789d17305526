;;; repoformer.el --- Inline code completion by a local model  -*- lexical-binding: t; -*-

;; Copyright (C) 2026 The repoformer-lsp authors

;; Author: The repoformer-lsp authors
;; Version: 0.1.0
;; Package-Requires: ((emacs "29.1"))
;; Keywords: convenience, languages, tools
;; URL: https://github.com/repoformer-lsp/repoformer-lsp
;; SPDX-License-Identifier: Apache-2.0

;; This file is not part of GNU Emacs.

;;; Commentary:

;; repoformer-lsp is a language server.  It suggests code as ghost text after
;; point, with a small language model that runs on your own machine, and reads
;; other files of the project when the model says that they would help.  This
;; file is its client, on top of Eglot:
;;
;;   (require 'repoformer)
;;   (add-hook 'python-mode-hook #'repoformer-ensure)
;;
;; `repoformer-install' installs the server and a model.
;;
;; While ghost text is shown, TAB accepts it, M-<right> its next word,
;; C-M-<right> its next line, M-n and M-p show another one and C-g dismisses it.
;; `repoformer-why' opens a report on the last suggestion.
;;
;; Eglot does not support textDocument/inlineCompletion and jsonrpc sends no
;; cancellations, so this file makes the requests: one for each pause in the
;; typing.  It drops an answer if the text or point has changed (the server
;; cancels the older request by itself).  After each command it compares the
;; suggestion with the buffer, so no request is needed while you type the
;; suggested text.

;;; Code:

(require 'cl-lib)
(require 'eglot)
(require 'jsonrpc)

(declare-function eglot--signal-textDocument/didChange "eglot")
(declare-function eglot--TextDocumentPositionParams "eglot")
(declare-function eglot--TextDocumentIdentifier "eglot")
(declare-function eglot--lsp-position-to-point "eglot")
(declare-function eglot--TextDocumentItem "eglot")
(declare-function url-filename "url-parse")
(declare-function xref-push-marker-stack "xref")
(defvar completion-preview-active-mode)
(defvar repoformer-mode)
(defvar repoformer-ghost-mode)

(defgroup repoformer nil
  "Inline code completion by a model on this machine."
  :group 'tools
  :prefix "repoformer-")

(defcustom repoformer-program nil
  "How to start the server: the program and its arguments.
Nil means the one that `repoformer-install' has installed, or else
repoformer-lsp on the PATH."
  :type '(repeat string))

(defcustom repoformer-package "repoformer-lsp"
  "What `repoformer-install' installs.
It is the name of a package, a wheel, an address, or the folder of a clone."
  :type 'string
  :risky t)

(defcustom repoformer-directory (locate-user-emacs-file "repoformer/")
  "Directory into which `repoformer-install' installs the server."
  :type 'directory
  :risky t)

(defcustom repoformer-settings nil
  "Settings of the server, a property list such as (:policy \"always\" :threads 4).
The server's README lists them all.  Lists are vectors: (:exclude [\"*.csv\"]).

Customize and `setopt' also change running servers; after `setq', call
`repoformer-reconfigure'.  A project can have its own value, as a
directory-local variable."
  :type 'plist
  :set (lambda (symbol value)
         (set-default-toplevel-value symbol value)
         (when (fboundp 'repoformer-reconfigure) ; not while this file is loaded
           (repoformer-reconfigure))))

(defcustom repoformer-delay 0.15
  "Seconds without a key before a request."
  :type 'number)

(defcustom repoformer-modes
  '(bash-ts-mode c++-mode c++-ts-mode c-mode c-ts-mode csharp-mode
    csharp-ts-mode dart-mode elixir-mode elixir-ts-mode go-mode go-ts-mode
    haskell-mode java-mode java-ts-mode js-mode js-ts-mode
    (js-jsx-mode :language-id "javascriptreact") julia-mode kotlin-mode
    kotlin-ts-mode lua-mode lua-ts-mode perl-mode php-mode php-ts-mode
    (python-mode :language-id "python") (python-ts-mode :language-id "python")
    ruby-mode ruby-ts-mode rust-mode rust-ts-mode scala-mode scala-ts-mode
    (sh-mode :language-id "shellscript") sql-mode swift-mode
    (tsx-ts-mode :language-id "typescriptreact") typescript-mode
    (typescript-ts-mode :language-id "typescript") zig-mode)
  "Major modes that one server serves, as in `eglot-server-programs'.
A mode also includes the modes that are derived from it."
  :type '(repeat sexp))

(defface repoformer-ghost '((t :inherit shadow :slant italic))
  "Face of ghost text.")

;;;; The server

(defclass repoformer-server (eglot-lsp-server)
  ((status :initform nil :accessor repoformer--status
           :documentation "The last status of the server."))
  :documentation "A repoformer-lsp server.")

(defvar repoformer--paused nil
  "Whether completions are paused in this session.")

(defvar repoformer--paused-languages nil
  "Language ids for which completions are paused in this session.")

(defvar repoformer--policy nil
  "The policy that was chosen in this session, or nil.")

(defvar repoformer--suggest nil
  "Which suggestions to show, as chosen in this session, or nil.")

(defconst repoformer--personal '(:serverUrl :model :generatorModel)
  "Settings that `eglot-workspace-configuration' cannot change.
Eglot accepts any value of that variable as safe, but a cloned repository must
not set where code is sent, or which files native code reads.")

(defun repoformer--settings (server)
  "Return the settings to send to SERVER.
The settings of the project, in the section :repoformer of
`eglot-workspace-configuration', override `repoformer-settings'; the choices of
this session override both.  Directory-local variables come from a buffer of
the project."
  (let* ((buffer (car (last (eglot--managed-buffers server))))
         (value (lambda (variable)
                  (if (buffer-live-p buffer)
                      (buffer-local-value variable buffer)
                    (default-value variable))))
         (settings (copy-sequence (funcall value 'repoformer-settings)))
         off)
    (cl-loop for (key setting) on (plist-get (funcall value 'eglot-workspace-configuration)
                                             :repoformer)
             by #'cddr
             unless (memq key repoformer--personal)
             do (setq settings (plist-put settings key setting)))
    (setq off (vconcat (plist-get settings :disabledLanguages)
                       repoformer--paused-languages))
    (when repoformer--paused
      (setq settings (plist-put settings :enabled :json-false)))
    (when (> (length off) 0)
      (setq settings (plist-put settings :disabledLanguages off)))
    (when repoformer--policy
      (setq settings (plist-put settings :policy repoformer--policy)))
    (when repoformer--suggest
      (setq settings (plist-put settings :suggest repoformer--suggest)))
    ;; jsonrpc would send an empty property list as null; an empty hash table
    ;; becomes an object.
    (or settings (make-hash-table))))

(cl-defmethod eglot-client-capabilities :around ((_server repoformer-server))
  "Add inline completion to the capabilities of Eglot."
  (let* ((all (cl-call-next-method))
         (text (plist-get all :textDocument)))
    (plist-put all :textDocument
               (append text '(:inlineCompletion (:dynamicRegistration :json-false))))))

(cl-defmethod eglot-handle-request
  ((server repoformer-server) (_method (eql workspace/configuration)) &key items)
  "Answer each of ITEMS with the settings of SERVER."
  (apply #'vector (mapcar (lambda (_item) (repoformer--settings server)) items)))

(cl-defmethod jsonrpc-connection-send :around
  ((server repoformer-server) &rest args &key method params &allow-other-keys)
  "Correct a message of Eglot to SERVER; ARGS include METHOD and PARAMS."
  (pcase method
    ;; Outside a project Eglot sends the folder of the file, which may be the home
    ;; directory.  Send no folder, so that none is indexed.
    ((and :initialize (guard (eq 'transient (car-safe (eglot--project server)))))
     (dolist (key '(:rootPath :rootUri :workspaceFolders))
       (setq params (plist-put params key nil)))
     (setq args (plist-put args :params params)))
    ;; Eglot sends its own settings after it has connected; replace them.
    (:workspace/didChangeConfiguration
     (setq params (list :settings (list :repoformer (repoformer--settings server)))
           args (plist-put args :params params))))
  (apply #'cl-call-next-method server args))

(cl-defmethod eglot-handle-notification
  ((server repoformer-server) (_method (eql repoformer/status)) &rest status)
  "Keep the STATUS of SERVER for the mode line."
  (setf (repoformer--status server) status)
  (force-mode-line-update t))

(defun repoformer--server ()
  "Return the current buffer's repoformer server, or nil."
  (let ((server (eglot-current-server)))
    (and (cl-typep server 'repoformer-server)
         (jsonrpc-running-p server)
         server)))

(defun repoformer--server-or-lose ()
  "Return the current buffer's repoformer server, or signal an error."
  (or (repoformer--server)
      (user-error "There is no repoformer server for this buffer; try `repoformer-ensure'")))

(defvar repoformer--told nil
  "Whether the user was told that the program is missing.")

(defvar-local repoformer--wanted nil
  "Whether `repoformer-ensure' found no server program for this buffer.")

(defconst repoformer--source-directory
  (file-name-directory (or load-file-name buffer-file-name default-directory))
  "Directory of this file.")

(defun repoformer--environment ()
  "Return the directory of the environment for `repoformer-install'."
  (expand-file-name "server" repoformer-directory))

(defun repoformer--command ()
  "Return the server's program and its arguments."
  (let* ((environment (repoformer--environment))
         (own (expand-file-name (if (eq system-type 'windows-nt)
                                    "Scripts/repoformer-lsp.exe"
                                  "bin/repoformer-lsp")
                                environment)))
    (cond
     (repoformer-program)
     ;; The installation writes this file last: without it the environment is
     ;; incomplete.
     ((and (file-exists-p (expand-file-name "repoformer-lsp.installed" environment))
           (file-executable-p own))
      (list own))
     (t (list "repoformer-lsp")))))

(defun repoformer--serves-p ()
  "Return whether `repoformer-modes' has the current buffer's mode."
  (apply #'derived-mode-p
         (mapcar (lambda (mode) (car (ensure-list mode))) repoformer-modes)))

;;;###autoload
(defun repoformer-ensure ()
  "Start the server for the current buffer's project, unless there is one.
For hooks of major modes, such as `prog-mode-hook'.  It does nothing in modes
that are not in `repoformer-modes'."
  (interactive)
  (cond
   ((not (repoformer--serves-p))
    (when (called-interactively-p 'interactive)
      (user-error "`%s' is not in `repoformer-modes'" major-mode)))
   ((executable-find (car (repoformer--command)))
    (setq repoformer--wanted nil)
    (setq-local eglot-server-programs
                (cons (cons repoformer-modes
                            (cons 'repoformer-server (repoformer--command)))
                      eglot-server-programs))
    (eglot-ensure))
   (t
    (setq repoformer--wanted t)
    (unless repoformer--told
      (setq repoformer--told t)
      (display-warning
       'repoformer
       (if repoformer-program
           (format-message "There is no program `%s'; correct `%s'."
                           (car repoformer-program) 'repoformer-program)
         "The server is not installed yet; `M-x repoformer-install' installs it and a model."))))))

(defun repoformer--stay-out (manage &rest args)
  "Call MANAGE with ARGS, without Eglot's backends if the server is ours.
MANAGE is Eglot's function that prepares a buffer.  It replaces the backends of
Xref, Flymake, Imenu, Eldoc and Company even if the server has none of these
features.  This function is an advice, not a part of `repoformer-ensure',
because Eglot also manages other buffers of the project, and because its
behavior for other servers must not change."
  (let ((eglot-stay-out-of
         (if (and buffer-file-name (repoformer--server))
             (append '(xref flymake imenu eldoc company) eglot-stay-out-of)
           eglot-stay-out-of)))
    (apply manage args)))

(advice-add 'eglot--maybe-activate-editing-mode :around #'repoformer--stay-out)

(defun repoformer--managed ()
  "Turn `repoformer-mode' on or off with Eglot."
  (repoformer-mode (if (and (eglot-managed-p) (repoformer--server)) 1 -1)))

(add-hook 'eglot-managed-mode-hook #'repoformer--managed)

;;;; Ghost text

(defvar-local repoformer--items nil
  "The server's items.")

(defvar-local repoformer--index 0
  "Index of the chosen item.")

(defvar-local repoformer--complete nil
  "Whether the list of items is complete, because the user requested it.")

(defvar-local repoformer--start nil
  "Marker where the text of the items begins.
It is before the part of the text that the user has typed.")

(defvar-local repoformer--after nil
  "The text from point to the end of the line when the items arrived.
The items are valid only before this text, and do not replace it.")

(defvar-local repoformer--overlay nil
  "The overlay that draws the ghost text, or nil.")

(defvar-local repoformer--request 0
  "Number of the last request; answers to earlier requests are dropped.")

(defvar-local repoformer--timer nil
  "The timer of the next request, or nil.")

(defvar-local repoformer--seen nil
  "Buffer tick and point after the last command.")

(defun repoformer--now ()
  "Return the state that must not change between a request and its answer."
  (list (buffer-chars-modified-tick) (point)))

(defun repoformer--window ()
  "Return the selected window, or the one before the minibuffer was selected."
  (or (minibuffer-selected-window) (selected-window)))

(defun repoformer--text ()
  "Return the text of the chosen item, or nil."
  (plist-get (nth repoformer--index repoformer--items) :insertText))

(defun repoformer--rest ()
  "Return the part of the chosen item after point, or nil."
  (when-let* ((text (repoformer--text))
              (start (and repoformer--start (marker-position repoformer--start)))
              (typed (and (<= start (point))
                          (buffer-substring-no-properties start (point))))
              ((string-prefix-p typed text))
              ((equal repoformer--after
                      (buffer-substring-no-properties (point) (pos-eol))))
              (rest (substring text (length typed)))
              ((not (string-empty-p rest))))
    rest))

(defun repoformer--forget ()
  "Remove the ghost text and the items."
  (when repoformer--overlay
    (delete-overlay repoformer--overlay)
    (setq repoformer--overlay nil))
  (when repoformer--start
    (set-marker repoformer--start nil))
  (setq repoformer--items nil
        repoformer--start nil)
  (repoformer-ghost-mode -1))

(defun repoformer--draw ()
  "Draw the part of the chosen item after point, or remove the ghost text."
  (if-let* ((rest (repoformer--rest))
            ((not (bound-and-true-p completion-preview-active-mode))))
      (let ((text (propertize rest 'face 'repoformer-ghost)))
        ;; Show the cursor before the ghost text, not after it.
        (put-text-property 0 1 'cursor t text)
        (unless repoformer--overlay
          (setq repoformer--overlay (make-overlay (point) (point) nil t t)))
        (move-overlay repoformer--overlay (point) (point))
        (overlay-put repoformer--overlay 'priority 100)
        (overlay-put repoformer--overlay 'window (repoformer--window))
        (overlay-put repoformer--overlay 'after-string text)
        (unless repoformer-ghost-mode (repoformer-ghost-mode 1)))
    (repoformer--forget)))

(defun repoformer--tell-shown ()
  "Tell the server which item is on the screen."
  (when-let* ((repoformer--overlay)
              (server (repoformer--server)))
    (jsonrpc-notify server :textDocument/didShowCompletion
                    (list :item (nth repoformer--index repoformer--items)))))

(defun repoformer--answered (buffer request now kind step answer)
  "Show the ANSWER to REQUEST in BUFFER, unless the state is no longer NOW.
KIND and STEP are those of `repoformer--ask'."
  (when (and (buffer-live-p buffer)
             (eq buffer (window-buffer (repoformer--window))))
    (with-current-buffer buffer
      (when (and repoformer-mode
                 (eql request repoformer--request)
                 (equal now (repoformer--now)))
        (repoformer--forget)
        (let* ((items (append (if (vectorp answer) answer (plist-get answer :items)) nil))
               (range (plist-get (car items) :range)))
          (when items
            (setq repoformer--items items
                  repoformer--complete (eql kind 1)
                  repoformer--index 0
                  repoformer--after (buffer-substring-no-properties (point) (pos-eol))
                  repoformer--start
                  (copy-marker (if range
                                   (eglot--lsp-position-to-point (plist-get range :start))
                                 (point))))
            (repoformer--draw)
            (if step
                (repoformer-next step)
              (repoformer--tell-shown))))))))

(defun repoformer--ask (buffer kind &optional step)
  "Request items at point of BUFFER.
KIND is 1 for a request of the user, 2 after a pause in the typing.  If STEP is
non-nil, show the item that is STEP items further when the answer arrives."
  (when (and (buffer-live-p buffer) (eq buffer (window-buffer)))
    (with-current-buffer buffer
      (setq repoformer--timer nil)
      (when-let* ((server (repoformer--server))
                  ((not buffer-read-only)))
        (let ((request (cl-incf repoformer--request))
              (now (repoformer--now)))
          (eglot--signal-textDocument/didChange)
          (jsonrpc-async-request
           server :textDocument/inlineCompletion
           (append (eglot--TextDocumentPositionParams)
                   (list :context (list :triggerKind kind)))
           :success-fn (lambda (answer)
                         (repoformer--answered buffer request now kind step answer))
           ;; A newer request has replaced this one, or the server reports the
           ;; failure by itself.
           :error-fn #'ignore
           :timeout 120
           :timeout-fn #'ignore))))))

(defun repoformer--tell-focus (&optional window)
  "Tell the server that the buffer of WINDOW is in front, and where point is.
The server evaluates the prompt there.  A nil WINDOW is the selected one."
  (when (memq window (list nil (selected-window)))
    (with-current-buffer (window-buffer window)
      (when-let* ((repoformer-mode)
                  (server (repoformer--server)))
        (eglot--signal-textDocument/didChange)
        (jsonrpc-notify server :textDocument/didFocus
                        (eglot--TextDocumentPositionParams))))))

(defun repoformer--window-changed (&optional window)
  "Tell the server which buffer is in front after a change of WINDOW.
WINDOW was selected or left, or shows another buffer.  Dismiss ghost text that
is drawn in a window that is not selected."
  (with-current-buffer (window-buffer window)
    (when (and repoformer--overlay
               (not (eq (repoformer--window) (overlay-get repoformer--overlay 'window))))
      (repoformer-dismiss)))
  (repoformer--tell-focus window))

(defun repoformer--stop-timer ()
  "Cancel the next request."
  (when repoformer--timer
    (cancel-timer repoformer--timer)
    (setq repoformer--timer nil)))

(defun repoformer--after-command ()
  "Compare the text with the items; if the text has changed, plan a request."
  (let ((now (repoformer--now)))
    (unless (equal now repoformer--seen)
      (let ((typed (not (eql (car now) (car repoformer--seen)))))
        (setq repoformer--seen now)
        (when (or repoformer--items repoformer--overlay)
          (repoformer--draw))
        (repoformer--stop-timer)
        (when typed
          (setq repoformer--timer
                (run-with-idle-timer repoformer-delay nil
                                     #'repoformer--ask (current-buffer) 2)))))))

(defconst repoformer--word
  (rx bos (* (any space "\n"))
      (or (+ (any word "_")) (+ (not (any word space "_\n")))))
  "Regular expression for the next word of a suggestion.")

(defun repoformer--part (text how)
  "Return the part of TEXT to accept; HOW is `word', `line' or `all'."
  (pcase how
    ((and 'word (guard (string-match repoformer--word text)))
     (match-string 0 text))
    ((and 'line (guard (string-match "\\`\n*[^\n]+" text)))
     (match-string 0 text))
    (_ text)))

(defun repoformer--accept (how)
  "Insert ghost text; HOW much of it is `word', `line' or `all'."
  (let* ((rest (or (and repoformer--overlay (repoformer--rest))
                   (user-error "There is no suggestion")))
         (part (repoformer--part rest how))
         (item (nth repoformer--index repoformer--items))
         (server (repoformer--server)))
    (undo-boundary)
    (insert part)
    (undo-boundary)
    (cond
     ((equal part rest)
      (repoformer--forget)
      (when-let* ((command (plist-get item :command))
                  (server server))
        (jsonrpc-async-request server :workspace/executeCommand
                               (list :command (plist-get command :command)
                                     :arguments (or (plist-get command :arguments) []))
                               :success-fn #'ignore :error-fn #'ignore)))
     (t
      (repoformer--draw)
      (when server
        (let ((whole (substring (plist-get item :insertText)
                                0 (- (length part) (length rest)))))
          (jsonrpc-notify server :textDocument/didPartiallyAcceptCompletion
                          (list :item item
                                ;; UTF-16 units, as everywhere in the protocol.
                                :acceptedLength
                                (/ (length (encode-coding-string whole 'utf-16le)) 2)))))))))

(defun repoformer-accept ()
  "Accept the suggestion."
  (interactive)
  (repoformer--accept 'all))

(defun repoformer-accept-word ()
  "Accept the suggestion's next word."
  (interactive)
  (repoformer--accept 'word))

(defun repoformer-accept-line ()
  "Accept the suggestion's next line."
  (interactive)
  (repoformer--accept 'line))

(defun repoformer-dismiss ()
  "Dismiss the suggestion, and drop the answer to a request in progress."
  (interactive)
  (cl-incf repoformer--request)
  (repoformer--stop-timer)
  (repoformer--forget))

(defun repoformer-next (&optional count)
  "Show the next suggestion, or the one that is COUNT suggestions further.
An automatic request gets only one suggestion, so this command first requests
the others."
  (interactive "p")
  (cond
   ((null repoformer--items))
   ((not repoformer--complete)
    (repoformer--stop-timer)
    (repoformer--ask (current-buffer) 1 (or count 1)))
   (t
    (setq repoformer--index
          (mod (+ repoformer--index (or count 1)) (length repoformer--items)))
    (repoformer--draw)
    (repoformer--tell-shown)
    (message "Suggestion %d of %d" (1+ repoformer--index) (length repoformer--items)))))

(defun repoformer-previous (&optional count)
  "Show the previous suggestion, or the one that is COUNT suggestions before."
  (interactive "p")
  (repoformer-next (- (or count 1))))

(defun repoformer-trigger ()
  "Suggest now."
  (interactive)
  (repoformer--server-or-lose)
  (repoformer-dismiss)
  (repoformer--ask (current-buffer) 1))

(defun repoformer--unless-indenting (command)
  "Return COMMAND, or nil if TAB should indent.
TAB indents if the line is blank and the suggestion begins with an indentation."
  (let ((rest (repoformer--rest)))
    (unless (and rest
                 (string-match-p "\\`[ \t]" rest)
                 (save-excursion (skip-chars-backward " \t") (bolp)))
      command)))

(defvar-keymap repoformer-ghost-mode-map
  :doc "Keys while ghost text is shown."
  "TAB" '(menu-item "" repoformer-accept :filter repoformer--unless-indenting)
  "M-<right>" #'repoformer-accept-word
  "C-M-<right>" #'repoformer-accept-line
  "M-n" #'repoformer-next
  "M-p" #'repoformer-previous
  "C-g" #'repoformer-dismiss)

(define-minor-mode repoformer-ghost-mode
  "Mode with the keys for ghost text, which is on while ghost text is shown.
Do not turn it on yourself."
  :lighter nil
  :interactive nil)

(defvar-keymap repoformer-mode-map
  :doc "Keymap of `repoformer-mode'.  By default, it has no keys.")

;;;###autoload
(define-minor-mode repoformer-mode
  "Show the suggestions of the repoformer server as ghost text.
Eglot turns this mode on in the buffers that the server manages."
  :lighter (:eval (repoformer--lighter))
  :keymap repoformer-mode-map
  (cond
   (repoformer-mode
    (setq repoformer--seen (repoformer--now))
    (when (buffer-modified-p)
      ;; The user typed while the server started.
      (setq repoformer--timer
            (run-with-timer 0 nil #'repoformer--ask (current-buffer) 2)))
    (repoformer--tell-focus)
    (add-hook 'window-selection-change-functions #'repoformer--window-changed nil t)
    (add-hook 'window-buffer-change-functions #'repoformer--window-changed nil t)
    (add-hook 'post-command-hook #'repoformer--after-command nil t))
   (t
    (remove-hook 'window-selection-change-functions #'repoformer--window-changed t)
    (remove-hook 'window-buffer-change-functions #'repoformer--window-changed t)
    (remove-hook 'post-command-hook #'repoformer--after-command t)
    (repoformer-dismiss))))

;;;; Status

(defvar-local repoformer--language nil
  "The language id of the buffer, or nil if it was not computed yet.")

(defun repoformer--language ()
  "Return the language id of the buffer."
  ;; Eglot copies the whole buffer to compute the id, and the mode line needs
  ;; the id for every key.  The variable is reset when the major mode changes.
  (or repoformer--language
      (setq repoformer--language (plist-get (eglot--TextDocumentItem) :languageId))))

(defun repoformer--state (server)
  "Return the state of SERVER for the current buffer, a string."
  (cond
   (repoformer--paused "paused")
   ((and repoformer--paused-languages
         (member (repoformer--language) repoformer--paused-languages))
    "off here")
   (t (or (plist-get (repoformer--status server) :state) "starting"))))

(defvar repoformer--lighter-map
  (let ((map (make-sparse-keymap)))
    (define-key map [mode-line mouse-1] #'repoformer-menu)
    map)
  "Keymap of the text in the mode line.")

(defun repoformer--lighter ()
  "Return the text in the mode line."
  (let* ((server (repoformer--server))
         (state (if server (repoformer--state server) "stopped"))
         (percent (and server (plist-get (repoformer--status server) :percent))))
    (list " "
          (propertize
           (concat "repoformer:" state
                   (and (equal state "indexing") percent (format " %d%%%%" percent)))
           'face (if (member state '("error" "stopped")) 'error nil)
           'help-echo (or (and server (plist-get (repoformer--status server) :message)) "")
           'mouse-face 'mode-line-highlight
           'local-map repoformer--lighter-map))))

(defun repoformer--uses-p (setting value)
  "Return whether SETTING, a keyword, has VALUE in the current buffer's server."
  (when-let* ((server (repoformer--server)))
    (equal value (plist-get (repoformer--status server) setting))))

(easy-menu-define repoformer-mode-menu repoformer-mode-map
  "The menu of repoformer."
  '("Repoformer"
    ["Why this completion" repoformer-why]
    ["Status" repoformer-status]
    "---"
    ["Pause" repoformer-pause :visible (not repoformer--paused)]
    ["Pause for this language" repoformer-pause-language]
    ["Resume" repoformer-resume]
    ("Read other files"
     ["When the model asks for it" (repoformer-policy "selective")
      :style radio :selected (repoformer--uses-p :policy "selective")]
     ["Always" (repoformer-policy "always")
      :style radio :selected (repoformer--uses-p :policy "always")]
     ["Never" (repoformer-policy "never")
      :style radio :selected (repoformer--uses-p :policy "never")])
    ("Show suggestions"
     ["All" (repoformer-suggest "eager")
      :style radio :selected (repoformer--uses-p :suggest "eager")]
     ["Those that you are likely to keep" (repoformer-suggest "balanced")
      :style radio :selected (repoformer--uses-p :suggest "balanced")]
     ["Those that you are very likely to keep" (repoformer-suggest "careful")
      :style radio :selected (repoformer--uses-p :suggest "careful")])
    "---"
    ["Log" repoformer-log]
    ["Doctor" repoformer-doctor]
    ["Install the server and a model" repoformer-install]
    ["Download a better model" repoformer-get-model]
    ["Restart" eglot-reconnect]))

(defun repoformer-menu (event)
  "Pop up the menu at EVENT."
  (interactive "e")
  (popup-menu repoformer-mode-menu event))

(defun repoformer-status ()
  "Show what the server is doing."
  (interactive)
  (let* ((server (repoformer--server-or-lose))
         (status (repoformer--status server)))
    (message "repoformer: %s; %s; model %s, policy %s, suggest %s"
             (repoformer--state server)
             (or (plist-get status :message) "starting")
             (or (plist-get status :model) "none")
             (or (plist-get status :policy) "unknown")
             (or (plist-get status :suggest) "unknown"))))

(defun repoformer-reconfigure ()
  "Send the settings to every repoformer server.
See `repoformer-settings'."
  (interactive)
  (let (told)
    (dolist (buffer (buffer-list))
      (with-current-buffer buffer
        (when-let* ((server (and (bound-and-true-p repoformer-mode) (repoformer--server))))
          (repoformer-dismiss)
          (unless (memq server told)
            (push server told)
            ;; `jsonrpc-connection-send' adds the settings.
            (jsonrpc-notify server :workspace/didChangeConfiguration nil))))))
  (force-mode-line-update t))

(defun repoformer-pause ()
  "Stop suggestions until `repoformer-resume'."
  (interactive)
  (setq repoformer--paused t)
  (repoformer-reconfigure))

(defun repoformer-pause-language ()
  "Stop suggestions in the language of this buffer until `repoformer-resume'."
  (interactive)
  (repoformer--server-or-lose)
  (cl-pushnew (repoformer--language) repoformer--paused-languages :test #'equal)
  (repoformer-reconfigure))

(defun repoformer-resume ()
  "Resume suggestions in all languages."
  (interactive)
  (setq repoformer--paused nil
        repoformer--paused-languages nil)
  (repoformer-reconfigure))

(defun repoformer-policy (policy)
  "Set when to read other files: POLICY is \"selective\", \"always\" or \"never\"."
  (interactive (list (completing-read "Read other files: "
                                      '("selective" "always" "never") nil t)))
  (setq repoformer--policy policy)
  (repoformer-reconfigure))

(defun repoformer-suggest (suggest)
  "Set which suggestions to show.
SUGGEST is \"eager\" for all, \"balanced\" for those that you are likely to
keep, or \"careful\" for those that you are very likely to keep."
  (interactive (list (completing-read "Show suggestions: "
                                      '("eager" "balanced" "careful") nil t)))
  (setq repoformer--suggest suggest)
  (repoformer-reconfigure))

(defun repoformer--log-directory ()
  "Return the directory of the server's logs."
  (pcase system-type
    ('darwin (expand-file-name "~/Library/Logs/repoformer-lsp"))
    ('windows-nt (expand-file-name "repoformer-lsp/Logs" (getenv "LOCALAPPDATA")))
    (_ (expand-file-name "repoformer-lsp/log"
                         (or (getenv "XDG_STATE_HOME") "~/.local/state")))))

(defun repoformer-log ()
  "Show the server's newest log."
  (interactive)
  (let* ((directory (repoformer--log-directory))
         (files (and (file-directory-p directory)
                     (directory-files directory t "\\`server-.*\\.log\\'"))))
    (unless files
      (user-error "There is no log yet in %s" directory))
    (view-file (car (last files)))
    (goto-char (point-max))))

(defun repoformer-doctor ()
  "Check this machine."
  (interactive)
  (compilation-start (mapconcat #'shell-quote-argument
                                (append (repoformer--command) '("doctor")) " ")
                     nil (lambda (_mode) "*repoformer-doctor*")))

;;;; Installing

(defconst repoformer--get-python
  (concat "Install Python 3.10 or later from python.org or your system's packages,"
          " or uv from docs.astral.sh/uv, then run `M-x repoformer-install' again.")
  "Advice for a machine on which no program can run the installation.")

(defvar repoformer--installation nil
  "The process that installs the server, or nil.")

(defvar repoformer--progress ""
  "The text in the mode line while the server is being installed.")

(defun repoformer--python ()
  "Return a command that can run a Python script, or nil.
Any Python is good enough; if there is none, uv downloads one."
  (or (cl-loop for name in (if (eq system-type 'windows-nt) '("py" "python") '("python3" "python"))
               when (executable-find name) return (list it))
      (cl-loop for name in '("uv" "~/.local/bin/uv" "~/.cargo/bin/uv")
               when (executable-find name)
               return (list it "run" "--no-project" "--python" ">=3.10"))))

;;;###autoload
(defun repoformer-install ()
  "Install the server and a model, and start the server.
The server goes into `repoformer-directory'; no other Python installation
changes.  After a failure, the same command continues where it stopped."
  (interactive)
  (when (process-live-p repoformer--installation)
    (user-error "The installation of the server is already running"))
  (let ((python (or (repoformer--python)
                    (user-error "There is no Python on this machine.  %s" repoformer--get-python)))
        (log (get-buffer-create "*repoformer-install*"))
        (default-directory (expand-file-name "~/"))
        (process-environment (cons "PYTHONIOENCODING=utf-8" process-environment))
        (outcome nil)
        (rest ""))
    (with-current-buffer log
      (setq buffer-read-only nil)
      (erase-buffer))
    (add-to-list 'global-mode-string 'repoformer--progress t)
    (put 'repoformer--progress 'risky-local-variable t)
    (repoformer--show-progress '(:message "Starting the installation"))
    (setq repoformer--installation
          (make-process
           :name "repoformer-install"
           :command (append python
                            (list (expand-file-name "install.py" repoformer--source-directory)
                                  (expand-file-name (repoformer--environment))
                                  "--package" repoformer-package
                                  "--setting" "`repoformer-package'"
                                  "--again" "run `M-x repoformer-install' again"))
           :connection-type 'pipe
           :coding 'utf-8
           :noquery t
           :stderr (make-pipe-process
                    :name "repoformer-install-log" :buffer log :noquery t :coding 'utf-8
                    :sentinel #'ignore)
           :filter (lambda (_process text)
                     (let ((lines (split-string (concat rest text) "\n")))
                       (setq rest (car (last lines)))
                       (dolist (line (butlast lines))
                         (when-let* ((told (ignore-errors
                                             (json-parse-string line :object-type 'plist
                                                                :null-object nil))))
                           (if (or (plist-get told :program) (plist-get told :error))
                               (setq outcome told)
                             (repoformer--show-progress told))))))
           :sentinel (lambda (process _event)
                       (unless (process-live-p process)
                         (setq repoformer--installation nil)
                         (repoformer--show-progress nil)
                         (repoformer--installed outcome (car python))))))))

(defun repoformer-get-model ()
  "Download a better model if this machine is fast enough for it, and use it."
  (interactive)
  (jsonrpc-async-request (repoformer--server-or-lose) :workspace/executeCommand
                         '(:command "repoformer.getModel" :arguments [])
                         :success-fn #'ignore :error-fn #'ignore
                         :timeout nil))

(defun repoformer-cancel-installation ()
  "End the installation of the server, but keep its downloads."
  (interactive)
  (unless (process-live-p repoformer--installation)
    (user-error "Nothing is being installed"))
  (set-process-sentinel repoformer--installation #'ignore)
  (delete-process repoformer--installation)
  (repoformer--show-progress nil)
  (message "repoformer: the installation is cancelled; `M-x repoformer-install' resumes it"))

(defun repoformer--show-progress (told)
  "Show TOLD, a line of the installation, in the echo area and the mode line.
Nil means that the installation has ended."
  (let ((percent (plist-get told :percent)))
    (setq repoformer--progress
          (cond ((null told) "")
                (percent (format " repoformer:installing %d%%%%" percent))
                (t " repoformer:installing")))
    (force-mode-line-update t)
    (when (and told (not (active-minibuffer-window)))
      (let (message-log-max)
        (message "repoformer: %s%s" (plist-get told :message)
                 (if percent (format " %d%%" percent) ""))))))

(defun repoformer--installed (outcome python)
  "Start the server, or tell why the installation failed.
OUTCOME is the last message of the installation, or nil if there is none, and
PYTHON is the program that ran it."
  (let ((warning (plist-get outcome :warning)))
    (cond
     ((plist-get outcome :program)
      (repoformer--start-again)
      (if (equal warning "")
          (message "repoformer: %s Open a file and type." (plist-get outcome :message))
        (display-warning 'repoformer (concat (plist-get outcome :message) " " warning))))
     (outcome
      (display-warning 'repoformer
                       (concat (plist-get outcome :error) " " (plist-get outcome :advice)
                               "\nThe buffer *repoformer-install* has the log.")
                       :error))
     (t
      (display-warning 'repoformer
                       (format "%s cannot run the installation; the buffer *repoformer-install* says why.  %s"
                               python repoformer--get-python)
                       :error)))))

(defun repoformer--start-again ()
  "Start the installed server in each buffer that has a server or needs one."
  (let (servers)
    (dolist (buffer (buffer-list))
      (with-current-buffer buffer
        (when-let* ((server (and (bound-and-true-p repoformer-mode) (repoformer--server))))
          (setq repoformer--wanted t)
          (cl-pushnew server servers))))
    (dolist (server servers)
      (eglot-shutdown server nil 5))
    (dolist (buffer (buffer-list))
      (with-current-buffer buffer
        (when repoformer--wanted
          (kill-local-variable 'eglot-server-programs)
          (repoformer-ensure))))))

;;;; Why

(defun repoformer--open (chunk)
  "Open the file of CHUNK at its first line, in another window."
  (let* ((uri (plist-get chunk :uri))
         (path (if (fboundp 'eglot-uri-to-path)
                   (eglot-uri-to-path uri)
                 (url-unhex-string (url-filename (url-generic-parse-url uri))))))
    (xref-push-marker-stack)
    (find-file-other-window path)
    (goto-char (point-min))
    (forward-line (1- (plist-get chunk :start_line)))
    (recenter)))

(defun repoformer--verdict (decision)
  "Return DECISION as a sentence."
  (let ((outcome (cond
                  ((eq (plist-get decision :retrieve) t) "other files were read")
                  ((eq (plist-get decision :deferred) t)
                   "other files are being read for the next one")
                  (t "this file was enough")))
        (source (plist-get decision :source)))
    (cond
     ((null decision) "No decision was made.")
     ((equal source "policy")
      (format "The policy decided, without the model: %s." outcome))
     (t
      (format "%s %.3f against a threshold of %.3f%s: %s."
              (if (equal source "similarity") "Similarity of the best code found" "P(retrieve)")
              (plist-get decision :p_retrieve)
              (plist-get decision :threshold)
              (if (eq (plist-get decision :held) t) ", decided earlier on this line" "")
              outcome)))))

(defun repoformer--kept (report)
  "Return, as a sentence, whether you are likely to keep the text of REPORT."
  (if-let* ((estimate (plist-get report :estimate)))
      (format "P(kept) %.3f against a threshold of %.3f (%s): %s."
              (plist-get estimate :p)
              (plist-get estimate :threshold)
              (plist-get estimate :suggest)
              (cond ((eq (plist-get estimate :shown) t) "shown")
                    ((equal (plist-get report :text) "") "hidden")
                    (t "shown, because you requested it")))
    "It was not estimated whether you keep the suggestion."))

(defun repoformer--trimmed (report)
  "Return, in words, which parts of the prompt of REPORT were cut, and why."
  (let ((parts (plist-get report :trimmed)))
    (if (= 0 (length parts))
        "Everything fitted into the prompt."
      (format "%s: %s."
              (if (eq (plist-get report :short_prompt) t)
                  "The prompt is short, because the model had not read\
 the whole one yet. It lacks"
                "Not everything fitted into the prompt")
              (mapconcat (lambda (part)
                           (pcase part
                             ("left" "text before the cursor")
                             ("right" "text after the cursor")
                             ("context" "code of other files")
                             (_ part)))
                         parts ", ")))))

(defun repoformer--insert-figures (title figures unit)
  "Insert a section with TITLE and the property list FIGURES, each with its UNIT."
  (insert "\n" (propertize title 'face 'bold) "\n\n")
  (cl-loop for (name value) on figures by #'cddr
           do (insert (format "  %-20s %s%s\n"
                              (string-replace "_" " " (substring (symbol-name name) 1))
                              value unit))))

(defun repoformer--insert-report (report)
  "Insert REPORT, the server's answer to repoformer/why."
  (insert (propertize "Why this completion" 'face 'bold) "\n\n"
          (format "%s:%d, by %s\n\n"
                  (file-name-nondirectory (plist-get report :uri))
                  (1+ (plist-get (plist-get report :position) :line))
                  (plist-get report :model))
          (repoformer--verdict (plist-get report :decision)) "\n\n"
          (repoformer--kept report) "\n\n")
  (if (equal (plist-get report :text) "")
      (insert (format "Nothing was suggested: %s.\n" (plist-get report :reason)))
    (insert (propertize (plist-get report :text) 'face 'repoformer-ghost) "\n"))
  (insert "\n" (propertize "Code from other files in the prompt" 'face 'bold) "\n\n")
  (when (= 0 (length (plist-get report :chunks)))
    (insert "  None.\n"))
  (mapc (lambda (chunk)
          (insert (format "  %.3f  " (plist-get chunk :score)))
          (insert-text-button (format "%s:%d-%d" (plist-get chunk :path)
                                      (plist-get chunk :start_line)
                                      (plist-get chunk :end_line))
                              'action (lambda (_button) (repoformer--open chunk))
                              'help-echo "Open it")
          (insert "\n"))
        (plist-get report :chunks))
  (insert "\n" (repoformer--trimmed report) "\n")
  (repoformer--insert-figures "Time" (plist-get report :timings_ms) " ms")
  (repoformer--insert-figures "Tokens (those not evaluated were in the cache)"
                              (plist-get report :stats) ""))

(defun repoformer-why ()
  "Show a report on the last completion in this buffer."
  (interactive)
  (let* ((server (repoformer--server-or-lose))
         (report (jsonrpc-request server :repoformer/why
                                  (list :textDocument (eglot--TextDocumentIdentifier)))))
    (unless report
      (user-error "Nothing was completed in this buffer yet"))
    (with-current-buffer (get-buffer-create "*repoformer-why*")
      (let ((inhibit-read-only t))
        (erase-buffer)
        (repoformer--insert-report report))
      (special-mode)
      (use-local-map (make-composed-keymap button-buffer-map special-mode-map))
      (goto-char (point-min)))
    (pop-to-buffer "*repoformer-why*")))

(provide 'repoformer)
;;; repoformer.el ends here
