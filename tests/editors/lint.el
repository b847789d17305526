;;; lint.el --- Lint an Emacs Lisp file  -*- lexical-binding: t; -*-

;; Usage: emacs -Q --batch -l lint.el FILE.  The exit status is 1 if the byte
;; compiler, checkdoc or package-lint reports a warning.

(require 'checkdoc)
(require 'package)
(setq package-check-signature nil)
(package-initialize)
(require 'package-lint)

(let* ((file (expand-file-name (pop command-line-args-left)))
       (byte-compile-error-on-warn t)
       (byte-compile-dest-file-function (lambda (_) (make-temp-file "lint" nil ".elc")))
       (compiled (byte-compile-file file)))
  (checkdoc-file file)
  (let ((said (and (get-buffer "*Warnings*")
                   (with-current-buffer "*Warnings*" (buffer-string))))
        (issues (with-current-buffer (find-file-noselect file)
                  (package-lint-buffer))))
    (dolist (issue issues)
      (message "package-lint: %S" issue))
    (kill-emacs (if (and (eq compiled t) (null said) (null issues)) 0 1))))
