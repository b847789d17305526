/**
 * Telling the server what became of its items.
 *
 * VS Code runs an item's `command` when it is accepted, and has no public event for the rest. What it is given is
 * reported as shown; what a word or a line adds to the document, with our own commands, as accepted in part.
 */

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";

type Items = vscode.InlineCompletionItem[] | vscode.InlineCompletionList;

interface Given {
    document: vscode.TextDocument;
    item: vscode.InlineCompletionItem;
    text: string;
}

export class Acceptance {
    private last: Given | undefined;

    constructor(private readonly client: () => LanguageClient | undefined) {}

    /** Items on their way to VS Code. */
    given<T extends Items | undefined>(document: vscode.TextDocument, items: T): T {
        for (const item of items === undefined ? [] : Array.isArray(items) ? items : items.items) {
            beginBehindPairs(document, item);
        }
        const [item] = items === undefined ? [] : Array.isArray(items) ? items : items.items;
        if (item && typeof item.insertText === "string") {
            this.last = { document, item, text: item.insertText };
            this.tell("textDocument/didShowCompletion", {});
        }
        return items;
    }

    /** Run one of VS Code's commands that accept a part, and tell how far the item is accepted now. */
    async accept(command: string): Promise<void> {
        const editor = vscode.window.activeTextEditor;
        await vscode.commands.executeCommand(command);
        const { last } = this;
        if (!editor || !last || editor.document !== last.document) {
            return;
        }
        const start = last.item.range?.start;
        if (!start) {
            return;
        }
        const reached = editor.document.getText(new vscode.Range(start, editor.selection.active)).replaceAll("\r\n", "\n");
        if (last.text.startsWith(reached)) {
            this.tell("textDocument/didPartiallyAcceptCompletion", { acceptedLength: reached.length });
        }
    }

    private tell(method: string, more: object): void {
        const client = this.client();
        if (!client?.isRunning() || !this.last) {
            return;
        }
        const { item, text } = this.last;
        const range = item.range && client.code2ProtocolConverter.asRange(item.range);
        const command = item.command && client.code2ProtocolConverter.asCommand(item.command);
        void client.sendNotification(method, { item: { insertText: text, range, command }, ...more });
    }
}

/**
 * Let an item begin behind the last character of two UTF-16 units that it replaces (an emoji, say): VS Code shows no
 * ghost text for one that replaces such a character by itself.
 */
function beginBehindPairs(document: vscode.TextDocument, item: vscode.InlineCompletionItem): void {
    if (!item.range?.isSingleLine || typeof item.insertText !== "string") {
        return;
    }
    const replaced = document.getText(item.range);
    const kept = replaced.length - (/[^\ud800-\udfff]*$/.exec(replaced)?.[0].length ?? 0);
    if (kept > 0 && item.insertText.startsWith(replaced)) {
        item.insertText = item.insertText.slice(kept);
        item.range = new vscode.Range(item.range.start.translate(0, kept), item.range.end);
    }
}
