/** A card on the board. `column` is the id of the column that it stands in. */
export interface Card {
  id: number;
  title: string;
  column: string;
  labels: string[];
  dueOn: string | null;
}

export interface Column {
  id: string;
  title: string;
  /** Most cards that may stand in it; 0 for any number. */
  limit: number;
}

export interface Board {
  columns: Column[];
  cards: Card[];
  nextId: number;
}

export type Result<T> = { ok: true; value: T } | { ok: false; reason: string };
