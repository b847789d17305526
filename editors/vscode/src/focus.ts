/** The file in front: the server reads ahead at its cursor, and hears of what was written before it was there. */

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
 * The server is there, for the first time or again: begin with the file in front.
 *
 * VS Code asks when a key is pressed, so what somebody wrote before there was anybody to ask needs a request of its
 * own. Whether they did, a round trip to the window tells: it asks by itself once it knows of us, and what was typed
 * before that is here by the time it has answered. That a document is dirty would tell less: it may be saved already.
 */
export async function takeUp(client: LanguageClient): Promise<void> {
    await vscode.commands.executeCommand("setContext", "repoformer.running", true);
    const editor = vscode.window.activeTextEditor;
    tellFocus(client, editor);
    if (editor && editor.document.version > 1 && vscode.languages.match(SELECTOR, editor.document) > 0) {
        await vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
    }
}
