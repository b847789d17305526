import { Result } from "./types";

export function success<T>(value: T): Result<T> {
  return { ok: true, value };
}

export function failure<T>(reason: string): Result<T> {
  return { ok: false, reason };
}

export function unwrap<T>(result: Result<T>): T {
  if (!result.ok) {
    throw new Error(result.reason);
  }
  return result.value;
}
