/** Tell the server which file is in front, and request completions for text that was typed before the server ran. */

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";
import { SELECTOR } from "./languages";

/** Tell the server which file is in front, and where its cursor is. */
export function tellFocus(client: LanguageClient | undefined, editor: vscode.TextEditor | undefined): void {
    if (!client?.isRunning() || !editor || vscode.languages.match(SELECTOR, editor.document) === 0) {
        return;
    }
    void client.sendNotification("textDocument/didFocus", {
        textDocument: client.code2ProtocolConverter.asTextDocumentIdentifier(editor.document),
        position: client.code2ProtocolConverter.asPosition(editor.selection.active),
    });
}

/**
 * After the server has started, for the first time or again: start with the file in front.
 *
 * VS Code requests completions when a key is pressed, so text that was typed before the server ran needs a request of
 * its own. A round trip to the window tells whether there is such text: VS Code requests by itself once it knows the
 * provider, and has sent earlier edits by the time it answers. `isDirty` would tell less: the text may be saved.
 */
export async function takeUp(client: LanguageClient): Promise<void> {
    await vscode.commands.executeCommand("setContext", "repoformer.running", true);
    const editor = vscode.window.activeTextEditor;
    tellFocus(client, editor);
    if (editor && editor.document.version > 1 && vscode.languages.match(SELECTOR, editor.document) > 0) {
        await vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
    }
}
