import { cardsIn, isFull } from "./board";
import { byUrgency, daysLeft, isOverdue } from "./due";
import { Board, Card, Column } from "./types";

export function cardLine(card: Card, today: Date): string {
  const days = daysLeft(card, today);
  const due = days === null ? "" : ` (${days} d)`;
  const mark = isOverdue(card, today) ? "!" : " ";
  return `${mark} ${card.title}${due}`;
}

export function columnLines(board: Board, column: Column, today: Date): string[] {
  const cards = byUrgency(cardsIn(board, column.id), today);
  const title = isFull(board, column) ? `${column.title} (full)` : column.title;
  return [title, ...cards.map((card) => cardLine(card, today))];
}

export function boardText(board: Board, today: Date): string {
  return board.columns.map((column) => columnLines(board, column, today).join("\n")).join("\n\n");
}
