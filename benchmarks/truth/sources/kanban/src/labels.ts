import { findCard } from "./board";
import { failure, success } from "./result";
import { Board, Card, Result } from "./types";

export function hasLabel(card: Card, label: string): boolean {
  return card.labels.includes(label);
}

export function addLabel(board: Board, cardId: number, label: string): Result<Board> {
  const card = findCard(board, cardId);
  if (card === undefined) {
    return failure(`there is no card ${cardId}`);
  }
  if (hasLabel(card, label)) {
    return success(board);
  }
  const labelled = { ...card, labels: [...card.labels, label] };
  return success({ ...board, cards: board.cards.map((other) => (other.id === cardId ? labelled : other)) });
}

export function cardsWithLabel(board: Board, label: string): Card[] {
  return board.cards.filter((card) => hasLabel(card, label));
}
