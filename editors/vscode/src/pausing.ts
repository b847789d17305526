/** Switch completions off and on, by changing settings. */

import * as vscode from "vscode";

export function settings(): vscode.WorkspaceConfiguration {
    return vscode.workspace.getConfiguration("repoformer");
}

/** Where to store a setting for this workspace only: the workspace settings, or the user's if no folder is open. */
export function target(): vscode.ConfigurationTarget {
    const open = vscode.workspace.workspaceFolders?.length;
    return open ? vscode.ConfigurationTarget.Workspace : vscode.ConfigurationTarget.Global;
}

/** Why a document has no completions; undefined if it has completions. */
export function isOff(document: vscode.TextDocument | undefined): string | undefined {
    if (!settings().get<boolean>("enabled", true)) {
        return "paused";
    }
    const language = document?.languageId;
    const off = language && settings().get<string[]>("disabledLanguages", []).includes(language);
    return off ? `off here (${language})` : undefined;
}

export async function pauseLanguage(): Promise<void> {
    const language = vscode.window.activeTextEditor?.document.languageId;
    if (!language) {
        void vscode.window.showInformationMessage("Open a file of the language first.");
        return;
    }
    const { Global, Workspace } = vscode.ConfigurationTarget;
    const off = settings().inspect<string[]>("disabledLanguages");
    // A list in the workspace settings replaces the list in the user's.
    const [values, level] = off?.workspaceValue ? [off.workspaceValue, Workspace] : [off?.globalValue ?? [], Global];
    await settings().update("disabledLanguages", [...new Set([...values, language])], level);
}

export async function pauseWorkspace(): Promise<void> {
    await settings().update("enabled", false, target());
}

/** Undo `pauseWorkspace`, and `pauseLanguage` for the current language, in user and workspace settings. */
export async function resume(): Promise<void> {
    const language = vscode.window.activeTextEditor?.document.languageId;
    const { Global, Workspace } = vscode.ConfigurationTarget;
    const enabled = settings().inspect<boolean>("enabled");
    if (enabled?.workspaceValue === false) {
        await settings().update("enabled", undefined, Workspace);
    }
    if (enabled?.globalValue === false) {
        await settings().update("enabled", undefined, Global);
    }
    const off = settings().inspect<string[]>("disabledLanguages");
    for (const [values, level] of [
        [off?.workspaceValue, Workspace],
        [off?.globalValue, Global],
    ] as const) {
        if (language && values?.includes(language)) {
            const left = values.filter((each) => each !== language);
            await settings().update("disabledLanguages", left.length ? left : undefined, level);
        }
    }
}
