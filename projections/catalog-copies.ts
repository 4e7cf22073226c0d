/** The catalog's fold of what became of the copies that backups made: forgotten, or combined into one. */
import type { CopyEvent, Point } from '../events/types.ts'
import type { CatalogWriter } from './catalog.ts'

export function applyCopyEvent(_catalog: CatalogWriter, _event: CopyEvent, _at: Point): void {}
