"""Which books there are."""

from __future__ import annotations

from collections.abc import Iterator

from lending.models import Book


class UnknownBookError(KeyError):
    """There is no book with this ISBN."""


class Catalogue:
    """All books by ISBN."""

    def __init__(self, books: list[Book] | None = None) -> None:
        self._books = {book.isbn: book for book in books or []}

    def __len__(self) -> int:
        return len(self._books)

    def __iter__(self) -> Iterator[Book]:
        return iter(self._books.values())

    def add(self, book: Book) -> None:
        """Put a book into the catalogue, in place of one with the same ISBN."""
        self._books[book.isbn] = book

    def by_isbn(self, isbn: str) -> Book:
        """Look a book up. Raises `UnknownBookError`."""
        try:
            return self._books[isbn]
        except KeyError:
            raise UnknownBookError(isbn) from None

    def search(self, words: str) -> list[Book]:
        """Books with all of these words in title or author, the oldest first."""
        wanted = words.lower().split()
        found = [book for book in self if all(word in book.label.lower() for word in wanted)]
        return sorted(found, key=lambda book: book.year)
