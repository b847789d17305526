/** Find the server: in the settings, else in the environment of this extension, else on the PATH. */

import * as fs from "node:fs";
import * as path from "node:path";
import * as vscode from "vscode";

export const WINDOWS = process.platform === "win32";
const PROGRAM = WINDOWS ? "repoformer-lsp.exe" : "repoformer-lsp";
const COMPLETE = "repoformer-lsp.installed"; // written last by install.py: without it the environment is incomplete
const SILENT = "installationNotWanted"; // a key of the global state, which all windows share

export interface Server {
    command: string[];
    source: "setting" | "own environment" | "PATH";
}

export async function findServer(context: vscode.ExtensionContext): Promise<Server | undefined> {
    const set = vscode.workspace.getConfiguration("repoformer").get<string[]>("server.command", []);
    if (set.length > 0) {
        return { command: set.map(expandHome), source: "setting" };
    }
    const folder = environment(context);
    const own = path.join(folder, WINDOWS ? "Scripts" : "bin", PROGRAM);
    if (fs.existsSync(path.join(folder, COMPLETE)) && (await isProgram(own))) {
        return { command: [own], source: "own environment" };
    }
    const found = await findProgram([PROGRAM]);
    return found ? { command: [found], source: "PATH" } : undefined;
}

/** The first of these programs that is in a folder of the PATH, or of `more`. */
export async function findProgram(names: string[], more: string[] = []): Promise<string | undefined> {
    for (const name of names) {
        for (const folder of [...(process.env.PATH ?? "").split(path.delimiter), ...more]) {
            const candidate = path.join(folder, name);
            if (folder && (await isProgram(candidate))) {
                return candidate;
            }
        }
    }
    return undefined;
}

/** Offer to install the server. After "Don't Ask Again", do so only if the user `asked` for a server. */
export async function offerInstallation(context: vscode.ExtensionContext, asked = false): Promise<void> {
    if (context.globalState.get<boolean>(SILENT) && !asked) {
        return;
    }
    const choice = await vscode.window.showInformationMessage(
        "Repoformer completes code with a model on this machine. Its server is not installed yet.",
        "Install",
        "Set a Path",
        "Don't Ask Again",
    );
    if (choice === "Install") {
        await vscode.commands.executeCommand("repoformer.install");
    } else if (choice === "Set a Path") {
        await vscode.commands.executeCommand("workbench.action.openSettings", "repoformer.server.command");
    } else if (choice) {
        await context.globalState.update(SILENT, true);
    }
}

/** Undo "Don't Ask Again". */
export async function offerAgain(context: vscode.ExtensionContext): Promise<void> {
    await context.globalState.update(SILENT, undefined);
}

/** The folder of the environment that this extension installs the server into. */
export function environment(context: vscode.ExtensionContext): string {
    return path.join(context.globalStorageUri.fsPath, "server");
}

async function isProgram(candidate: string): Promise<boolean> {
    try {
        await fs.promises.access(candidate, fs.constants.X_OK);
        return (await fs.promises.stat(candidate)).isFile();
    } catch {
        return false;
    }
}

function expandHome(word: string): string {
    return word.startsWith("~/") ? path.join(process.env.HOME ?? "~", word.slice(2)) : word;
}
