/** *Why this completion*: the server's report (`repoformer/why`) as a page whose links open the code. */

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";

const OPEN = "repoformer.openCode"; // not in the manifest, because only the links of the page run this command

interface Chunk {
    path: string;
    start_line: number;
    end_line: number;
    score: number;
    uri: string;
}

interface Estimate {
    p: number;
    threshold: number;
    shown: boolean;
    suggest: string;
}

interface Report {
    uri: string;
    position: { line: number };
    text: string;
    decision: {
        p_retrieve: number;
        threshold: number;
        retrieve: boolean;
        source: string;
        held: boolean;
        deferred: boolean;
    } | null;
    chunks: Chunk[];
    timings_ms: Record<string, number>;
    stats: Record<string, number>;
    trimmed: string[];
    short_prompt: boolean;
    model: string;
    reason: string;
    estimate: Estimate | null;
}

export class WhyPage implements vscode.Disposable {
    private panel: vscode.WebviewPanel | undefined;
    private readonly opening = vscode.commands.registerCommand(OPEN, open);

    constructor(private readonly client: () => LanguageClient | undefined) {}

    async show(): Promise<void> {
        const client = this.client();
        if (!client?.isRunning()) {
            void vscode.window.showWarningMessage("The Repoformer server is not running.");
            return;
        }
        const editor = vscode.window.activeTextEditor;
        const uri = editor && client.code2ProtocolConverter.asUri(editor.document.uri);
        const report = await client.sendRequest<Report | null>("repoformer/why", uri ? { textDocument: { uri } } : {});
        if (!report) {
            void vscode.window.showInformationMessage("Nothing was completed in this file yet.");
            return;
        }
        const place = { viewColumn: vscode.ViewColumn.Beside, preserveFocus: true };
        if (this.panel) {
            this.panel.reveal(undefined, true);
        } else {
            const options = { enableCommandUris: [OPEN] };
            this.panel = vscode.window.createWebviewPanel("repoformer.why", "Why this completion", place, options);
            this.panel.onDidDispose(() => (this.panel = undefined));
        }
        this.panel.webview.html = page(report);
    }

    dispose(): void {
        this.opening.dispose();
        this.panel?.dispose();
    }
}

/** Open a file at a line, counted from 1, beside the page. */
async function open(uri: string, line: number): Promise<void> {
    const selection = new vscode.Range(line - 1, 0, line - 1, 0);
    await vscode.window.showTextDocument(vscode.Uri.parse(uri), { viewColumn: vscode.ViewColumn.One, selection });
}

function page(report: Report): string {
    const place = `${vscode.workspace.asRelativePath(vscode.Uri.parse(report.uri))}:${report.position.line + 1}`;
    const chunks = report.chunks.map((chunk) => {
        const link = `command:${OPEN}?${encodeURIComponent(JSON.stringify([chunk.uri, chunk.start_line]))}`;
        const name = escaped(`${chunk.path}:${chunk.start_line}-${chunk.end_line}`);
        return `${chunk.score.toFixed(3)} <a href="${link}" title="Open this code">${name}</a>`;
    });
    const text = report.text
        ? `<pre>${escaped(report.text)}</pre>`
        : `<p>Nothing was suggested: ${escaped(report.reason)}.</p>`;
    return `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>pre { padding: 1em; overflow-x: auto; background: var(--vscode-textCodeBlock-background);
font-family: var(--vscode-editor-font-family); font-size: var(--vscode-editor-font-size) }</style></head><body>
<h1>Why this completion</h1><p>${escaped(place)}, by ${escaped(report.model || "no model")}</p>
<p>${verdict(report)}</p><p>${kept(report)}</p>${text}
<h2>Code from other files in the prompt</h2>${chunks.length ? list(chunks) : "<p>None.</p>"}
<p>${escaped(trimmed(report))}</p>
<h2>Time</h2>${list(figures(report.timings_ms, " ms"))}
<h2>Tokens</h2><p>Tokens that were not evaluated were in the cache.</p>${list(figures(report.stats, ""))}
</body></html>`;
}

function list(entries: string[]): string {
    return `<ul>${entries.map((entry) => `<li>${entry}</li>`).join("")}</ul>`;
}

/** The text, with the characters escaped that mean something in HTML. */
function escaped(text: string): string {
    return text.replace(/[&<>"]/g, (each) => `&#${each.charCodeAt(0)};`);
}

function verdict({ decision }: Report): string {
    if (!decision) {
        return "No decision was made.";
    }
    const without = decision.deferred ? "<b>other files are being read for the next one</b>" : "<b>this file was enough</b>";
    const outcome = decision.retrieve ? "<b>other files were read</b>" : without;
    if (decision.source === "policy") {
        return `The policy decided, without the model: ${outcome}.`;
    }
    const what = decision.source === "similarity" ? "Similarity of the best code found" : "P(retrieve)";
    const [p, threshold] = [decision.p_retrieve.toFixed(3), decision.threshold.toFixed(3)];
    const when = decision.held ? ", decided earlier on this line" : "";
    return `${what} ${p} against a threshold of ${threshold}${when}: ${outcome}.`;
}

/** Whether the suggestion is likely enough to be kept, in a sentence. */
function kept({ estimate, text }: Report): string {
    if (!estimate) {
        return "It was not estimated whether you keep the suggestion.";
    }
    const [p, threshold] = [estimate.p.toFixed(3), estimate.threshold.toFixed(3)];
    const hidden = text ? "<b>shown</b>, because you requested it" : "<b>hidden</b>";
    const outcome = estimate.shown ? "<b>shown</b>" : hidden;
    return `P(kept) ${p} against a threshold of ${threshold} (${escaped(estimate.suggest)}): ${outcome}.`;
}

const PARTS: Record<string, string> = {
    left: "text before the cursor",
    right: "text after the cursor",
    context: "code of other files",
};

/** What did not fit into the prompt, and why, in words. */
function trimmed(report: Report): string {
    const parts = report.trimmed.map((part) => PARTS[part] ?? part).join(", ");
    if (!parts) {
        return "Everything fitted into the prompt.";
    }
    return report.short_prompt
        ? `The prompt is short, because the model had not read the whole one yet. It lacks: ${parts}.`
        : `Not everything fitted into the prompt: ${parts}.`;
}

function figures(values: Record<string, number>, unit: string): string[] {
    return Object.entries(values).map(([name, value]) => `${escaped(name.replaceAll("_", " "))}: ${value}${unit}`);
}
