/** What the lending service sends and takes. */

export interface Book {
  isbn: string;
  title: string;
  author: string;
  year: number;
  copies: number;
}

export interface Loan {
  isbn: string;
  memberNumber: number;
  borrowedOn: string;
  dueOn: string;
  renewals: number;
  returnedOn: string | null;
}

export interface Problem {
  status: number;
  message: string;
}
