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
 * Tell a server that has just started which file is in front, and request a completion for text that was typed before.
 *
 * VS Code requests completions when a key is pressed, so text that was typed before the server ran needs a request of
 * its own. The first command is a round trip to the window: when it returns, all edits from before VS Code knew the
 * provider have arrived, and have increased the document's version. For later edits, VS Code makes the requests.
 * `isDirty` does not show such edits if the file was saved.
 */
export async function takeUp(client: LanguageClient): Promise<void> {
    await vscode.commands.executeCommand("setContext", "repoformer.running", true);
    const editor = vscode.window.activeTextEditor;
    tellFocus(client, editor);
    if (editor && editor.document.version > 1 && vscode.languages.match(SELECTOR, editor.document) > 0) {
        await vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
    }
}
