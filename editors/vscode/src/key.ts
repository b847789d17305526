/** The key of the generating server, in the editor's secret store, never in the settings. */

import * as vscode from "vscode";
import { ExecuteCommandRequest, type LanguageClient } from "vscode-languageclient/node";

const NAME = "serverKey";

export function storedKey(context: vscode.ExtensionContext): Thenable<string | undefined> {
    return context.secrets.get(NAME);
}

/** Ask for the key, store it and send it to the server. An empty key removes the stored one. */
export async function setKey(context: vscode.ExtensionContext, client: LanguageClient | undefined): Promise<void> {
    const url = vscode.workspace.getConfiguration("repoformer").get<string>("serverUrl", "");
    const key = await vscode.window.showInputBox({
        title: "Repoformer: the server's key",
        prompt: `Sent to ${url} with each request. Leave it empty to remove the stored key.`,
        password: true,
        ignoreFocusOut: true,
    });
    if (key === undefined) {
        return;
    }
    await (key ? context.secrets.store(NAME, key) : context.secrets.delete(NAME));
    if (client) {
        const options = client.clientOptions.initializationOptions as { serverKey: string | undefined };
        options.serverKey = key || undefined; // for a restart after a crash
    }
    await client?.sendRequest(ExecuteCommandRequest.type, { command: "repoformer.setServerKey", arguments: [key] });
}
