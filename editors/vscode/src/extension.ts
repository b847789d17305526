/**
 * The extension: one language client for all workspace folders, its status bar item and its commands.
 *
 * The language client requests inline completions; VS Code draws and accepts them. This file adds what the protocol
 * lacks: finding and installing the server, its status, the reasons for a suggestion, and pausing.
 */

import * as vscode from "vscode";
import { LanguageClient, State, type LanguageClientOptions } from "vscode-languageclient/node";
import { Acceptance } from "./acceptance";
import { choose, current } from "./choosing";
import { CrashHandler } from "./crashes";
import { takeUp, tellFocus } from "./focus";
import { installServer } from "./install";
import { setKey, storedKey } from "./key";
import { SELECTOR } from "./languages";
import * as pausing from "./pausing";
import { findServer, offerInstallation } from "./server";
import { STATUS, StatusBar, type Status } from "./statusBar";
import { WhyPage } from "./why";

let client: LanguageClient | undefined;
let output: vscode.LogOutputChannel;
let bar: StatusBar;
let acceptance: Acceptance;
let turn = Promise.resolve();

const PATIENCE_MS = 10_000; // how long `stop` waits for a server to start, because it cannot stop the server earlier

export async function activate(context: vscode.ExtensionContext): Promise<void> {
    output = vscode.window.createOutputChannel("Repoformer", { log: true });
    bar = new StatusBar();
    acceptance = new Acceptance(() => client);
    const why = new WhyPage(() => client);
    const commands: Record<string, () => unknown> = {
        menu: () => showMenu(),
        why: () => why.show(),
        pauseLanguage: () => pausing.pauseLanguage(),
        pauseWorkspace: () => pausing.pauseWorkspace(),
        resume: () => pausing.resume(),
        policy: () => choose("policy"),
        suggest: () => choose("suggest"),
        logs: () => output.show(),
        restart: () => restart(context),
        doctor: () => doctor(context),
        key: () => setKey(context, client),
        install: () => installServer(context, output).then((done) => (done ? restart(context) : undefined)),
        trigger: () => vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
        acceptWord: () => acceptance.accept("editor.action.inlineSuggest.acceptNextWord"),
        acceptLine: () => acceptance.accept("editor.action.inlineSuggest.acceptNextLine"),
    };
    context.subscriptions.push(output, bar, why);
    for (const [name, run] of Object.entries(commands)) {
        context.subscriptions.push(vscode.commands.registerCommand(`repoformer.${name}`, run));
    }
    context.subscriptions.push(
        vscode.workspace.onDidChangeConfiguration((change) => {
            bar.refresh();
            if (change.affectsConfiguration("repoformer.server.command")) {
                void restart(context);
            }
        }),
        vscode.window.onDidChangeActiveTextEditor((editor) => tellFocus(client, editor)),
        vscode.workspace.onDidGrantWorkspaceTrust(() => restart(context)),
    );
    await restart(context);
}

export async function deactivate(): Promise<void> {
    await stop();
}

async function start(context: vscode.ExtensionContext): Promise<void> {
    const server = await findServer(context);
    if (!server) {
        bar.update({ state: "error", message: "the server is not installed" });
        void offerInstallation(context);
        return;
    }
    const [program, ...args] = server.command as [string, ...string[]];
    output.info(`server: ${server.command.join(" ")} (${server.source})`);
    const options: LanguageClientOptions = {
        documentSelector: SELECTOR,
        outputChannel: output,
        errorHandler: new CrashHandler(bar, output, () => client === starting),
        // The values that the server needs before it asks for the settings. Only these: the user could not remove a
        // setting that is given here.
        initializationOptions: {
            completion: vscode.workspace.getConfiguration("repoformer").get("completion"),
            serverKey: await storedKey(context),
        },
        middleware: {
            async provideInlineCompletionItems(document, position, context, token, next) {
                const given = await next(document, position, context, token);
                return acceptance.offer(document, given ?? undefined);
            },
        },
        initializationFailedHandler: (error) => {
            output.error(error instanceof Error ? error : String(error));
            return false;
        },
    };
    const starting = new LanguageClient("repoformer", "Repoformer", { command: program, args }, options);
    client = starting;
    starting.onNotification(STATUS, (status: Status) => bar.update(status));
    starting.onDidChangeState(({ newState }) => {
        if (newState === State.Running) {
            const begun = starting.start(); // the start in progress, which ends when VS Code knows the server
            void begun.then(() => takeUp(starting)).catch((error: unknown) => output.warn(String(error)));
            return;
        }
        void vscode.commands.executeCommand("setContext", "repoformer.running", false);
        if (newState === State.Starting) {
            bar.update({ state: "starting", message: "starting the server" });
        }
    });
    void begin(starting, program);
}

async function begin(starting: LanguageClient, program: string): Promise<void> {
    try {
        await starting.start();
    } catch (error) {
        output.error(error instanceof Error ? error : String(error));
        if (client !== starting) {
            return; // stopped meanwhile
        }
        bar.update({ state: "error", message: `the server could not be started: ${program}` });
        const choice = await vscode.window.showErrorMessage(
            `Repoformer could not start ${program}.`,
            "Show Logs",
            "Open Settings",
        );
        if (choice === "Show Logs") {
            output.show();
        } else if (choice) {
            await vscode.commands.executeCommand("workbench.action.openSettings", "repoformer.server");
        }
    }
}

/** Stop the current client. It cannot be stopped while it starts; if it never answers, kill its server. */
async function stop(): Promise<void> {
    const old = client;
    client = undefined;
    if (old?.state === State.Starting) {
        const late = setTimeout(() => old.serverProcess?.kill(), PATIENCE_MS);
        await old.start().catch(() => undefined); // the start in progress; `begin` reports its failure
        clearTimeout(late);
    }
    await old?.dispose().catch((error: unknown) => output.warn(String(error)));
}

/** Restart the server. Calls run one after the other, so that each of them stops the client of the previous call. */
function restart(context: vscode.ExtensionContext): Promise<void> {
    turn = turn
        .then(stop)
        .then(() => start(context))
        .catch((error: unknown) => output.error(String(error)));
    return turn;
}

async function doctor(context: vscode.ExtensionContext): Promise<void> {
    const server = await findServer(context);
    if (!server) {
        await offerInstallation(context, true);
        return;
    }
    const [program, ...args] = server.command as [string, ...string[]];
    const run = new vscode.ProcessExecution(program, [...args, "doctor"]);
    const task = new vscode.Task({ type: "process" }, vscode.TaskScope.Workspace, "doctor", "repoformer", run);
    task.presentationOptions = { reveal: vscode.TaskRevealKind.Always, clear: true, showReuseMessage: false };
    await vscode.tasks.executeTask(task);
}

async function showMenu(): Promise<void> {
    const language = vscode.window.activeTextEditor?.document.languageId;
    const off = pausing.isOff(vscode.window.activeTextEditor?.document);
    const entries: (vscode.QuickPickItem & { command?: string })[] = [
        { label: bar.description, kind: vscode.QuickPickItemKind.Separator },
        { label: "$(question) Why this completion?", command: "why" },
        ...(off
            ? [{ label: "$(play) Resume", description: off, command: "resume" }]
            : [
                  { label: `$(debug-pause) Pause for ${language ?? "this language"}`, command: "pauseLanguage" },
                  { label: "$(debug-pause) Pause for this workspace", command: "pauseWorkspace" },
              ]),
        { label: "$(references) When to read other files…", description: current("policy"), command: "policy" },
        { label: "$(filter) Which suggestions to show…", description: current("suggest"), command: "suggest" },
        { label: "$(output) Logs", command: "logs" },
        { label: "$(debug-restart) Restart the server", command: "restart" },
        { label: "$(heart) Doctor", command: "doctor" },
    ];
    const chosen = await vscode.window.showQuickPick(entries, { title: "Repoformer" });
    if (chosen?.command) {
        await vscode.commands.executeCommand(`repoformer.${chosen.command}`);
    }
}
