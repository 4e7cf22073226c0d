/** The store now, or as it was: both answer the same questions. */
import type { Store } from '../store/store.ts'
import type { PointInput } from '../store/types.ts'
import type { StateView } from '../store/view.ts'

/** Without a point: the state at the log's head, through the same door as any other moment (R22). */
export function viewAt(store: Store, point: PointInput | undefined, signal: AbortSignal): Promise<StateView> {
  return store.at(point ?? 'now', { signal })
}
