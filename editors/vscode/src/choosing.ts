/** Let the user choose the value of a setting from a list. The server uses the value from the next request on. */

import * as vscode from "vscode";
import { settings, target } from "./pausing";

interface Choice {
    title: string;
    initial: string;
    values: Record<string, string>; // the explanation of each value
}

const CHOICES = {
    policy: {
        title: "When to read other files",
        initial: "selective",
        values: {
            selective: "When the model says that they would help",
            always: "For every completion",
            never: "Never",
        },
    },
    suggest: {
        title: "Which suggestions to show",
        initial: "balanced",
        values: {
            eager: "All suggestions",
            balanced: "Suggestions that you are likely to keep",
            careful: "Only suggestions that you are very likely to keep",
        },
    },
} satisfies Record<string, Choice>;

export type Setting = keyof typeof CHOICES;

/** The value in use. */
export function current(name: Setting): string {
    return settings().get<string>(name, CHOICES[name].initial);
}

/** Show the values and store the chosen one: in the workspace settings if they set it already, else in the user's. */
export async function choose(name: Setting): Promise<void> {
    const now = current(name);
    const entries = Object.entries(CHOICES[name].values).map(([label, detail]) => ({
        label,
        detail,
        description: label === now ? "now" : "",
    }));
    const chosen = await vscode.window.showQuickPick(entries, { title: CHOICES[name].title });
    if (chosen) {
        const { workspaceValue } = settings().inspect(name) ?? {};
        const level = workspaceValue === undefined ? vscode.ConfigurationTarget.Global : target();
        await settings().update(name, chosen.label, level);
    }
}
