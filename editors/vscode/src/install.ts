/**
 * Install the server and a model: run `install.py`, which is the same for every editor, and show its progress.
 *
 * Any Python runs the script; if there is none, uv downloads one.
 */

import * as childProcess from "node:child_process";
import * as os from "node:os";
import * as path from "node:path";
import * as readline from "node:readline";
import * as vscode from "vscode";
import { environment, findProgram, offerAgain, WINDOWS } from "./server";

const SETTING = "repoformer.server.package";

/** A line of the script's output: progress, or the outcome, which has `program` or `error`. */
interface Told {
    message?: string;
    percent?: number | null;
    program?: string;
    warning?: string;
    error?: string;
    advice?: string;
    kind?: string;
}

/** Ask the user, then install. After a failure, offer to try again. Returns whether the server is installed. */
export async function installServer(context: vscode.ExtensionContext, output: vscode.LogOutputChannel): Promise<boolean> {
    await offerAgain(context);
    const folder = environment(context);
    const consent = await vscode.window.showInformationMessage(
        "Install the Repoformer server and its model?",
        {
            modal: true,
            detail: `The server is a Python package. It goes into an environment of its own, ${folder}, and changes no other Python. It needs about 400 MB, and the model is another download of 491 MB. Your code stays on this machine.`,
        },
        "Install",
    );
    return consent ? install(context, output) : false;
}

async function install(context: vscode.ExtensionContext, output: vscode.LogOutputChannel): Promise<boolean> {
    const outcome = await run(await command(), environment(context), output);
    if (outcome.program) {
        const next = outcome.warning ? ` ${outcome.warning}` : " Open a file and type.";
        const show = outcome.warning ? vscode.window.showWarningMessage : vscode.window.showInformationMessage;
        void show(`${outcome.message}${next}`, ...(outcome.warning ? ["Show Logs"] : [])).then(
            (choice) => choice && output.show(),
        );
        return true;
    }
    if (!outcome.error) {
        return false; // cancelled
    }
    const help = outcome.kind === "package" ? ["Open Settings"] : [];
    const choice = await vscode.window.showErrorMessage(
        `${outcome.error} ${outcome.advice ?? ""}`,
        "Try Again",
        ...help,
        "Show Logs",
    );
    if (choice === "Try Again") {
        return install(context, output);
    }
    if (choice === "Open Settings") {
        await vscode.commands.executeCommand("workbench.action.openSettings", SETTING);
    } else if (choice) {
        output.show();
    }
    return false;
}

/** A command that can run a Python script; empty if there is none. */
async function command(): Promise<string[]> {
    const python = await findProgram(WINDOWS ? ["py.exe", "python.exe"] : ["python3", "python"]);
    if (python) {
        return [python];
    }
    const own = [path.join(os.homedir(), ".local", "bin"), path.join(os.homedir(), ".cargo", "bin")];
    const uv = await findProgram([WINDOWS ? "uv.exe" : "uv"], own);
    return uv ? [uv, "run", "--no-project", "--python", ">=3.10"] : [];
}

async function run([program, ...first]: string[], folder: string, output: vscode.LogOutputChannel): Promise<Told> {
    const get = "Install Python 3.10 or later from python.org or your system's packages, or uv from docs.astral.sh/uv.";
    if (!program) {
        return { error: "There is no Python on this machine.", advice: get };
    }
    const settings = vscode.workspace.getConfiguration();
    const script = path.join(__dirname, "..", "install.py");
    const named = ["--package", settings.get<string>(SETTING, "repoformer-lsp"), "--setting", `the setting ${SETTING}`];
    const words = [...first, script, folder, ...named, "--again", "try again"];
    const proxy = settings.get<string>("http.proxy");
    const env = proxy ? { HTTPS_PROXY: proxy, HTTP_PROXY: proxy, ...process.env } : process.env;
    const title = "Repoformer";
    const where = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    return vscode.window.withProgress(where, (bar, token) => {
        output.info([program, ...words].join(" "));
        const child = childProcess.spawn(program, words, { env, cwd: os.homedir(), stdio: ["ignore", "pipe", "pipe"] });
        token.onCancellationRequested(() => child.kill());
        let outcome: Told = {};
        let written = "";
        let percent = 0;
        readline.createInterface(child.stderr).on("line", (line) => {
            output.info(line);
            written = line.trim() || written;
        });
        readline.createInterface(child.stdout).on("line", (line) => {
            let told: Told;
            try {
                told = JSON.parse(line) as Told;
            } catch {
                output.info(line);
                return;
            }
            if (told.program ?? told.error) {
                outcome = told;
                return;
            }
            const now = Math.max(told.percent ?? percent, percent);
            bar.report({ message: told.message, increment: now - percent });
            percent = now;
        });
        return new Promise((resolve) => {
            child.on("error", (error) => resolve({ error: `${program} cannot be started: ${error.message}.`, advice: get }));
            child.on("close", () => {
                const silent = !outcome.program && !outcome.error && !token.isCancellationRequested;
                resolve(silent ? { error: `${program} cannot run the installation: ${written}`, advice: get } : outcome);
            });
        });
    });
}
