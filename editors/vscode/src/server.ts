/** Which program to start: the setting, else what is on the PATH, else an environment that was made with consent. */

import * as childProcess from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { promisify } from "node:util";
import * as vscode from "vscode";

const WINDOWS = process.platform === "win32";
const PROGRAM = WINDOWS ? "repoformer-lsp.exe" : "repoformer-lsp";
const SILENT = "installationNotWanted"; // in the global state: for every window
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
    for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
        const candidate = path.join(folder, PROGRAM);
        if (folder && (await isProgram(candidate))) {
            return { command: [candidate], source: "PATH" };
        }
    }
    const own = path.join(environment(context), WINDOWS ? "Scripts" : "bin", PROGRAM);
    return (await isProgram(own)) ? { command: [own], source: "own environment" } : undefined;
}

/** Say that there is no server, and what can be done; to somebody who wants to hear no more of it, only when asked. */
export async function offerInstallation(context: vscode.ExtensionContext, asked = false): Promise<void> {
    if (context.globalState.get<boolean>(SILENT) && !asked) {
        return;
    }
    const choice = await vscode.window.showInformationMessage(
        "Repoformer needs its server, repoformer-lsp, which is not on the PATH. It can be installed into an environment of its own.",
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

/** Make the environment, after asking. Returns whether the server is there now. */
export async function installServer(context: vscode.ExtensionContext, output: vscode.LogOutputChannel): Promise<boolean> {
    await context.globalState.update(SILENT, undefined); // somebody is interested again
    const folder = environment(context);
    const what = expandHome(
        vscode.workspace.getConfiguration("repoformer").get<string>("server.package", "repoformer-lsp"),
    );
    const consent = await vscode.window.showInformationMessage(
        "Install the Repoformer server?",
        {
            modal: true,
            detail: `pip installs ${what} and what it needs into ${folder}. The default model comes with it, about 90 MB. llama.cpp is compiled on the way, which takes some minutes and a C++ compiler.`,
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
        void explain(String(error), what, output);
        return false;
    }
}

/** Say why nothing was installed. The message of a program that failed ends with what it wrote. */
async function explain(error: string, what: string, output: vscode.LogOutputChannel): Promise<void> {
    const unknown = error.includes(`No matching distribution found for ${what}`);
    const choice = await vscode.window.showErrorMessage(
        unknown
            ? `pip found no ${what}: it is not released yet, or the package index could not be reached. To install it from a clone of its repository, name the clone's folder in the setting repoformer.server.package.`
            : "The Repoformer server could not be installed.",
        ...(unknown ? ["Open Settings"] : []),
        "Show Logs",
    );
    if (choice === "Show Logs") {
        output.show();
    } else if (choice) {
        await vscode.commands.executeCommand("workbench.action.openSettings", "repoformer.server.package");
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
    return word.startsWith("~/") ? path.join(process.env.HOME ?? "~", word.slice(2)) : word;
}
