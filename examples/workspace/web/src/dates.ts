/** Dates as ISO texts, the way the service sends them. */

const DAY = 24 * 60 * 60 * 1000;

export function daysBetween(from: string, to: string): number {
  return Math.round((Date.parse(to) - Date.parse(from)) / DAY);
}

export function isPast(day: string, today: string): boolean {
  return daysBetween(day, today) > 0;
}

export function readable(day: string): string {
  return new Date(day).toLocaleDateString(undefined, { day: "numeric", month: "long", year: "numeric" });
}
