/** Calls to the lending service. */

import type { Book, Loan, Problem } from "./types";

export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }
}

export class LendingApi {
  constructor(private readonly baseUrl: string) {}

  searchBooks(words: string): Promise<Book[]> {
    return this.get<Book[]>(`/books?search=${encodeURIComponent(words)}`);
  }

  openLoans(memberNumber: number): Promise<Loan[]> {
    return this.get<Loan[]>(`/members/${memberNumber}/loans?open=true`);
  }

  renewLoan(isbn: string, memberNumber: number): Promise<Loan> {
    return this.post<Loan>(`/members/${memberNumber}/loans/${isbn}/renew`, {});
  }

  private async get<T>(path: string): Promise<T> {
    const response = await fetch(this.baseUrl + path);
    return this.unwrap<T>(response);
  }

  private async post<T>(path: string, body: unknown): Promise<T> {
    const response = await fetch(this.baseUrl + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return this.unwrap<T>(response);
  }

  private async unwrap<T>(response: Response): Promise<T> {
    if (!response.ok) {
      throw new ApiError({ status: response.status, message: await response.text() });
    }
    return (await response.json()) as T;
  }
}
