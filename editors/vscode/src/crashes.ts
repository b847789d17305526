/** Restart a server that ends unexpectedly, and tell the user once; stop restarting one that keeps ending. */

import * as vscode from "vscode";
import { CloseAction, ErrorAction, type CloseHandlerResult, type ErrorHandler, type ErrorHandlerResult } from "vscode-languageclient/node";
import type { StatusBar } from "./statusBar";

const PERIOD_MS = 3 * 60 * 1000;
const MOST = 4;

export class CrashHandler implements ErrorHandler {
    private readonly ends: number[] = [];
    private told = false;

    constructor(
        private readonly bar: StatusBar,
        private readonly output: vscode.LogOutputChannel,
        private readonly wanted: () => boolean,
    ) {}

    error(): ErrorHandlerResult {
        return { action: ErrorAction.Continue };
    }

    closed(): CloseHandlerResult {
        if (!this.wanted()) {
            return { action: CloseAction.DoNotRestart, handled: true };
        }
        const now = Date.now();
        this.ends.push(now);
        while (this.ends[0] !== undefined && now - this.ends[0] > PERIOD_MS) {
            this.ends.shift();
        }
        if (this.ends.length > MOST) {
            this.bar.update({ state: "error", message: "the server keeps ending; see the logs" });
            void this.offer(`The Repoformer server ended ${this.ends.length} times in three minutes.`);
            return { action: CloseAction.DoNotRestart, handled: true };
        }
        this.output.warn("the server ended unexpectedly and is started again");
        if (!this.told) {
            this.told = true;
            void this.offer("The Repoformer server ended unexpectedly and was started again.");
        }
        return { action: CloseAction.Restart, handled: true };
    }

    private async offer(message: string): Promise<void> {
        const choice = await vscode.window.showWarningMessage(message, "Show Logs", "Run Doctor");
        if (choice) {
            await vscode.commands.executeCommand(choice === "Show Logs" ? "repoformer.logs" : "repoformer.doctor");
        }
    }
}
