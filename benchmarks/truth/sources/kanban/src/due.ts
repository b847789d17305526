import { cardsIn } from "./board";
import { Board, Card } from "./types";

const DAY = 24 * 60 * 60 * 1000;

export function daysLeft(card: Card, today: Date): number | null {
  if (card.dueOn === null) {
    return null;
  }
  return Math.ceil((Date.parse(card.dueOn) - today.getTime()) / DAY);
}

export function isOverdue(card: Card, today: Date): boolean {
  const days = daysLeft(card, today);
  return days !== null && days < 0;
}

export function overdueIn(board: Board, columnId: string, today: Date): Card[] {
  return cardsIn(board, columnId).filter((card) => isOverdue(card, today));
}

export function byUrgency(cards: Card[], today: Date): Card[] {
  return [...cards].sort((a, b) => (daysLeft(a, today) ?? Infinity) - (daysLeft(b, today) ?? Infinity));
}
