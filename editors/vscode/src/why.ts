/** *Why this completion*: the server's report (`repoformer/why`) as a Markdown preview whose chunks are links. */

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";

const SCHEME = "repoformer-why";

interface Chunk {
    path: string;
    start_line: number;
    end_line: number;
    score: number;
    uri: string;
}

interface Report {
    uri: string;
    position: { line: number };
    text: string;
    decision: { p_retrieve: number; threshold: number; retrieve: boolean; source: string; held: boolean } | null;
    chunks: Chunk[];
    timings_ms: Record<string, number>;
    stats: Record<string, number>;
    trimmed: string[];
    model: string;
    reason: string;
}

export class WhyDocuments implements vscode.TextDocumentContentProvider, vscode.Disposable {
    private readonly changed = new vscode.EventEmitter<vscode.Uri>();
    readonly onDidChange = this.changed.event;
    private text = "";
    private readonly registered: vscode.Disposable;

    constructor(private readonly client: () => LanguageClient | undefined) {
        this.registered = vscode.Disposable.from(
            this.changed,
            vscode.workspace.registerTextDocumentContentProvider(SCHEME, this),
        );
    }

    provideTextDocumentContent(): string {
        return this.text;
    }

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
        this.write(report);
        const document = vscode.Uri.from({ scheme: SCHEME, path: "/Why this completion.md" });
        this.changed.fire(document);
        await vscode.commands.executeCommand("markdown.showPreviewToSide", document);
    }

    private write(report: Report): void {
        const lines: string[] = [];
        const place = escaped(`${vscode.workspace.asRelativePath(vscode.Uri.parse(report.uri))}:${report.position.line + 1}`);
        lines.push("# Why this completion", "", `${place}, by ${report.model || "no model"}`, "", verdict(report), "");
        if (report.text) {
            const fence = "`".repeat(1 + Math.max(2, ...(report.text.match(/`+/g) ?? []).map((run) => run.length)));
            lines.push(fence, ...report.text.split("\n"), fence, "");
        } else {
            lines.push(`Nothing was suggested: ${report.reason}.`, "");
        }
        lines.push("## Code from other files in the prompt", "");
        for (const chunk of report.chunks) {
            const name = escaped(`${chunk.path}:${chunk.start_line}-${chunk.end_line}`);
            const place = vscode.Uri.parse(chunk.uri).with({ fragment: `L${chunk.start_line}` });
            lines.push(`- ${chunk.score.toFixed(3)} [${name}](<${place.toString()}>)`);
        }
        if (report.chunks.length === 0) {
            lines.push("None.");
        }
        lines.push("", trimmed(report));
        lines.push("", "## Time", "", ...figures(report.timings_ms, " ms"));
        lines.push("", "## Tokens", "", "What was not evaluated was in the cache.", "");
        lines.push(...figures(report.stats, ""), "");
        this.text = lines.join("\n");
    }

    dispose(): void {
        this.registered.dispose();
    }
}

/** Text that Markdown shows as it is. */
function escaped(text: string): string {
    return text.replace(/[\\[\]`*_<>&]/g, "\\$&");
}

function verdict({ decision }: Report): string {
    if (!decision) {
        return "No decision was made.";
    }
    const outcome = decision.retrieve ? "**other files were read**" : "**this file was enough**";
    if (decision.source === "policy") {
        return `By the policy, without asking the model: ${outcome}.`;
    }
    const what = decision.source === "similarity" ? "Similarity of the best code found" : "P(retrieve)";
    const [p, threshold] = [decision.p_retrieve.toFixed(3), decision.threshold.toFixed(3)];
    const when = decision.held ? ", asked earlier on this line" : "";
    return `${what} ${p} against a threshold of ${threshold}${when}: ${outcome}.`;
}

const PARTS: Record<string, string> = {
    left: "text before the cursor",
    right: "text after the cursor",
    context: "code of other files",
};

/** What did not fit into the prompt, in a sentence. */
function trimmed({ trimmed }: Report): string {
    const parts = trimmed.map((part) => PARTS[part] ?? part).join(", ");
    return parts ? `Not all of it fitted into the prompt: ${parts}.` : "All of it fitted into the prompt.";
}

function figures(values: Record<string, number>, unit: string): string[] {
    return Object.entries(values).map(([name, value]) => `- ${name.replaceAll("_", " ")}: ${value}${unit}`);
}
