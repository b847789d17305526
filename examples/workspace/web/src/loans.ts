/** The page with a member's loans. */

import { LendingApi } from "./api";
import { daysBetween, isPast, readable } from "./dates";
import type { Loan } from "./types";

export function describe(loan: Loan, today: string): string {
  if (isPast(loan.dueOn, today)) {
    return `${daysBetween(loan.dueOn, today)} days late`;
  }
  return `due on ${readable(loan.dueOn)}`;
}

export async function showLoans(api: LendingApi, memberNumber: number, list: HTMLElement): Promise<void> {
  const today = new Date().toISOString().slice(0, 10);
  const loans = await api.openLoans(memberNumber);
  for (const loan of loans) {
    const row = document.createElement("li");
    row.textContent = `${loan.isbn}: ${describe(loan, today)}`;
    list.append(row);
  }
}
