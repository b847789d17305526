/** Which program to start: the setting, else what is on the PATH, else an environment that was made with consent. */

import * as childProcess from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { promisify } from "node:util";
import * as vscode from "vscode";

const WINDOWS = process.platform === "win32";
const PROGRAM = WINDOWS ? "repoformer-lsp.exe" : "repoformer-lsp";
const run = promisify(childProcess.execFile);

export interface Server {
    command: string[];
    source: "setting" | "PATH" | "own environment";
}

export async function findServer(context: vscode.ExtensionContext): Promise<Server | undefined> {
    const set = vscode.workspace.getConfiguration("repoformer").get<string[]>("server.command", []);
    if (set.length > 0) {
        return { command: set.map(expandHome), source: "setting" };
    }
    for (const folder of (process.env["PATH"] ?? "").split(path.delimiter)) {
        const candidate = path.join(folder, PROGRAM);
        if (folder && (await isProgram(candidate))) {
            return { command: [candidate], source: "PATH" };
        }
    }
    const own = path.join(environment(context), WINDOWS ? "Scripts" : "bin", PROGRAM);
    return (await isProgram(own)) ? { command: [own], source: "own environment" } : undefined;
}

/** Say that there is no server, and what can be done. */
export async function offerInstallation(): Promise<void> {
    const choice = await vscode.window.showInformationMessage(
        "Repoformer needs its server, repoformer-lsp, which is not on the PATH. It can be installed into an environment of its own.",
        "Install",
        "Set a Path",
    );
    if (choice === "Install") {
        await vscode.commands.executeCommand("repoformer.install");
    } else if (choice) {
        await vscode.commands.executeCommand("workbench.action.openSettings", "repoformer.server.command");
    }
}

/** Make the environment and get the model, after asking. Returns whether the server is there now. */
export async function installServer(context: vscode.ExtensionContext, output: vscode.LogOutputChannel): Promise<boolean> {
    const folder = environment(context);
    const what = vscode.workspace.getConfiguration("repoformer").get<string>("server.package", "repoformer-lsp");
    const consent = await vscode.window.showInformationMessage(
        "Install the Repoformer server?",
        {
            modal: true,
            detail: `pip installs ${what} and what it needs into ${folder}; llama.cpp is compiled on the way, which takes some minutes and a C++ compiler. Then the default model is downloaded, about 100 MB.`,
        },
        "Install",
    );
    if (!consent) {
        return false;
    }
    const python = await findPython();
    if (!python) {
        void vscode.window.showErrorMessage("Python 3.10 or later was not found on the PATH.");
        return false;
    }
    const bin = path.join(folder, WINDOWS ? "Scripts" : "bin");
    const steps: [string, string, string[]][] = [
        ["making the environment", python, ["-m", "venv", folder]],
        ["installing", path.join(bin, WINDOWS ? "python.exe" : "python"), ["-m", "pip", "install", "--upgrade", what]],
    ];
    const progress = { location: vscode.ProgressLocation.Notification, title: "Repoformer" };
    try {
        await vscode.window.withProgress(progress, async (bar) => {
            for (const [message, program, args] of steps) {
                bar.report({ message });
                output.info(`${program} ${args.join(" ")}`);
                const { stdout, stderr } = await run(program, args, { maxBuffer: 1 << 26 });
                output.info(stdout + stderr);
            }
        });
        return true;
    } catch (error) {
        output.error(error instanceof Error ? error : String(error));
        const choice = await vscode.window.showErrorMessage("The Repoformer server could not be installed.", "Show Logs");
        if (choice) {
            output.show();
        }
        return false;
    }
}

async function findPython(): Promise<string | undefined> {
    const check = "import sys; assert sys.version_info >= (3, 10)";
    for (const name of WINDOWS ? ["py", "python"] : ["python3", "python"]) {
        try {
            await run(name, ["-c", check]);
            return name;
        } catch {
            // The next one, then.
        }
    }
    return undefined;
}

function environment(context: vscode.ExtensionContext): string {
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
    return word.startsWith("~/") ? path.join(process.env["HOME"] ?? "~", word.slice(2)) : word;
}
