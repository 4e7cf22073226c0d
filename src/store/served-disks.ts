/**
 * Disks that a door of this process serves: clients write to them, so what would take the disk from under them is refused (R21, R32).
 * Not a matter of the log: it knows who attached a disk, and not whether anybody is behind it.
 */
import { CheckpointError } from '../errors.ts'
import type { AnyCommand } from './core.ts'

export class ServedDisks {
  readonly #ids = new Set<string>()

  /** Returns how to give it back. @throws CheckpointError DISK_SERVED where another door has it */
  add(disk: string): () => void {
    if (this.#ids.has(disk)) throw served(disk, 'serve')
    this.#ids.add(disk)
    return () => void this.#ids.delete(disk)
  }

  /** @throws CheckpointError DISK_SERVED */
  refuse(commands: readonly AnyCommand[]): void {
    for (const command of commands) {
      switch (command.type) {
        case 'resize-disk':
        case 'detach-disk':
        case 'remove-disk':
          if (this.#ids.has(command.disk)) throw served(command.disk, command.type)
      }
    }
  }
}

function served(disk: string, operation: string): CheckpointError {
  return new CheckpointError(
    'DISK_SERVED',
    `disk "${disk}" is being served, and its clients go on writing to it; stop serving it first`,
    { disk, operation },
  )
}
