"""Commands for working on the project: releases, generated pages."""
