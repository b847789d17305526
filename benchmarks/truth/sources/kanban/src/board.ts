import { Board, Card, Column, Result } from "./types";
import { failure, success } from "./result";

export function emptyBoard(columns: Column[]): Board {
  return { columns, cards: [], nextId: 1 };
}

export function findColumn(board: Board, id: string): Column | undefined {
  return board.columns.find((column) => column.id === id);
}

export function findCard(board: Board, id: number): Card | undefined {
  return board.cards.find((card) => card.id === id);
}

export function cardsIn(board: Board, columnId: string): Card[] {
  return board.cards.filter((card) => card.column === columnId);
}

export function isFull(board: Board, column: Column): boolean {
  return column.limit > 0 && cardsIn(board, column.id).length >= column.limit;
}

export function addCard(board: Board, title: string, columnId: string): Result<Board> {
  const column = findColumn(board, columnId);
  if (column === undefined) {
    return failure(`there is no column ${columnId}`);
  }
  if (isFull(board, column)) {
    return failure(`${column.title} is full`);
  }
  const card: Card = { id: board.nextId, title, column: columnId, labels: [], dueOn: null };
  return success({ ...board, cards: [...board.cards, card], nextId: board.nextId + 1 });
}

export function moveCard(board: Board, cardId: number, columnId: string): Result<Board> {
  const card = findCard(board, cardId);
  const column = findColumn(board, columnId);
  if (card === undefined || column === undefined) {
    return failure("there is no such card or column");
  }
  if (card.column !== columnId && isFull(board, column)) {
    return failure(`${column.title} is full`);
  }
  const cards = board.cards.map((other) => (other.id === cardId ? { ...other, column: columnId } : other));
  return success({ ...board, cards });
}
