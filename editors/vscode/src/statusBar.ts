/** The status bar item: what the server is doing (`repoformer/status`), and whether it is off in this file. */

import * as vscode from "vscode";
import { LANGUAGES } from "./languages";
import { isOff } from "./pausing";

export const STATUS = "repoformer/status";

export interface Status {
    state: "starting" | "indexing" | "ready" | "generating" | "off" | "error";
    message: string;
    model?: string;
    policy?: string;
    percent?: number | null;
}

const ICONS: Record<Status["state"] | "paused", string> = {
    starting: "$(loading~spin)",
    indexing: "$(sync~spin)",
    ready: "$(sparkle)",
    generating: "$(ellipsis)",
    off: "$(circle-slash)",
    paused: "$(debug-pause)",
    error: "$(warning)",
};

export class StatusBar implements vscode.Disposable {
    private readonly item = vscode.window.createStatusBarItem("repoformer", vscode.StatusBarAlignment.Right, 100);
    private readonly following = vscode.window.onDidChangeActiveTextEditor(() => this.refresh());
    private status: Status = { state: "starting", message: "starting" };

    constructor() {
        this.item.name = "Repoformer";
        this.item.command = "repoformer.menu";
        this.refresh();
        this.item.show();
    }

    update(status: Status): void {
        this.status = status;
        this.refresh();
    }

    /** The state as text. */
    get description(): string {
        const { state, message } = this.status;
        const off = state === "error" ? undefined : this.off();
        return off ?? message;
    }

    refresh(): void {
        const { state, message, model, policy, percent } = this.status;
        const off = state === "error" ? undefined : this.off();
        const icon = off ? (off.startsWith("paused") ? ICONS.paused : ICONS.off) : ICONS[state];
        const figure = !off && state === "indexing" && percent != null ? ` ${percent}%` : "";
        this.item.text = `${icon} Repoformer${figure}`;
        this.item.accessibilityInformation = { label: `Repoformer: ${off ?? message}` };
        const tooltip = [`**Repoformer**: ${off ?? message}`];
        if (model) {
            tooltip.push(`Model ${model}; other files are read: ${policy ?? "unknown"}`);
        }
        this.item.tooltip = new vscode.MarkdownString(tooltip.join("\n\n"));
        const failed = state === "error" ? "statusBarItem.warningBackground" : undefined;
        this.item.backgroundColor = failed ? new vscode.ThemeColor(failed) : undefined;
    }

    private off(): string | undefined {
        const document = vscode.window.activeTextEditor?.document;
        if (document && !["file", "untitled"].includes(document.uri.scheme)) {
            return isOff(undefined); // not a file with code, but for example an output channel
        }
        if (document && !LANGUAGES.includes(document.languageId)) {
            return `off here (${document.languageId})`;
        }
        return isOff(document);
    }

    dispose(): void {
        this.following.dispose();
        this.item.dispose();
    }
}
