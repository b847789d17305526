/**
 * Tell the server what happened to its items.
 *
 * VS Code runs an item's `command` when the user accepts the whole item, and has no public event for anything else. So
 * this class reports the first item as shown when it passes items to VS Code. Our own commands accept a word or a line,
 * and report how much of the item the document then contains.
 */

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";

type Items = vscode.InlineCompletionItem[] | vscode.InlineCompletionList;

interface Given {
    item: vscode.InlineCompletionItem;
    text: string;
}

export class Acceptance {
    private document: vscode.TextDocument | undefined;
    private given: Given[] = [];

    constructor(private readonly client: () => LanguageClient | undefined) {}

    /** Pass items to VS Code, which shows the first of them. */
    offer<T extends Items | undefined>(document: vscode.TextDocument, items: T): T {
        const given: Given[] = [];
        const all: Items = items ?? [];
        for (const item of "items" in all ? all.items : all) {
            beginBehindPairs(document, item);
            if (typeof item.insertText === "string") {
                given.push({ item, text: item.insertText });
            }
        }
        if (given[0]) {
            this.document = document;
            this.given = given;
            this.tell("textDocument/didShowCompletion", given[0], {});
        }
        return items;
    }

    /** Run one of VS Code's commands that accept a part, and tell the server how much of the item is accepted now. */
    async accept(command: string): Promise<void> {
        const editor = vscode.window.activeTextEditor;
        await vscode.commands.executeCommand(command);
        if (!editor || editor.document !== this.document) {
            return;
        }
        // VS Code does not say which of several items is on screen. It is the one that begins with the document's text.
        for (const given of this.given) {
            const start = given.item.range?.start;
            if (!start) {
                continue;
            }
            const written = editor.document.getText(new vscode.Range(start, editor.selection.active));
            const reached = written.replaceAll("\r\n", "\n");
            if (given.text.startsWith(reached)) {
                this.tell("textDocument/didPartiallyAcceptCompletion", given, { acceptedLength: reached.length });
                return;
            }
        }
    }

    private tell(method: string, { item, text }: Given, more: object): void {
        const client = this.client();
        if (!client?.isRunning()) {
            return;
        }
        const range = item.range && client.code2ProtocolConverter.asRange(item.range);
        const command = item.command && client.code2ProtocolConverter.asCommand(item.command);
        void client.sendNotification(method, { item: { insertText: text, range, command }, ...more });
    }
}

/**
 * Shorten an item that replaces characters of two UTF-16 units, such as emojis, so that it starts after the last of
 * them. VS Code shows no ghost text for an item that replaces such a character by the same character.
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
