/**
 * What a door does around each point of a disk that it serves: freeze a guest before, thaw it after (R8).
 *
 * It runs before the command is handed to the committer, not inside: a guest that freezes writes its caches back, and those writes
 * have to be recorded meanwhile. Points that anybody wants to be told of come one after another, whatever their disks: guests
 * have several disks and one agent, so the thaw of one point must not end the freeze of another. Costs nothing where nobody asked.
 */
import type { AnyCommand } from './core.ts'

/** A point that is about to be taken. */
export interface PointAhead {
  readonly disk: string
  /** What takes it, as the log will say: `begin-backup`, `bank`, `create-checkpoint`, or `transaction` for several. */
  readonly command: string
  /** 1 for the first disk of this point that anybody wants to be told of, 2 for the next. */
  readonly nth: number
}

export interface PointHooks {
  /** The point waits for it; what it rejects with refuses the command, and nothing is recorded (R21). */
  before(point: PointAhead): Promise<void>
  /** Whatever became of `before` and of the point, exactly once. What it rejects with is nobody's: it has to tell by itself. */
  after(point: PointAhead): Promise<void>
}

/** Runs `work` between `before` and `after` of every disk. */
export type Around = <T>(work: () => Promise<T>) => Promise<T>

export class AroundPoints {
  readonly #hooks = new Map<string, PointHooks>()
  #turn: Promise<unknown> = Promise.resolve()

  /** One for each disk, by its id. Returns how to take it away again: a point that was asked for before still has it. */
  add(disk: string, hooks: PointHooks): () => void {
    this.#hooks.set(disk, hooks)
    return () => {
      if (this.#hooks.get(disk) === hooks) this.#hooks.delete(disk)
    }
  }

  /** Whose hooks these commands would run, once for each disk: a checkpoint is a point of every one. */
  of(commands: readonly AnyCommand[]): ReadonlyMap<string, PointHooks> {
    const found = new Map<string, PointHooks>()
    if (this.#hooks.size === 0) return found
    for (const command of commands) {
      for (const disk of this.#disksOf(command)) {
        const hooks = this.#hooks.get(disk)
        if (hooks !== undefined) found.set(disk, hooks)
      }
    }
    return found
  }

  #disksOf(command: AnyCommand): Iterable<string> {
    switch (command.type) {
      case 'begin-backup':
      case 'bank':
        return [command.disk]
      case 'create-checkpoint':
        return [...this.#hooks.keys()]
      default:
        return []
    }
  }

  /** In its turn. `work` is given what runs the hooks: it need not call it, and then nothing is frozen. */
  take<T>(
    hooked: ReadonlyMap<string, PointHooks>,
    command: string,
    work: (around: Around) => Promise<T>,
  ): Promise<T> {
    const taken = this.#turn.then(() => work((inner) => around(hooked, command, inner)))
    this.#turn = taken.catch(() => undefined)
    return taken
  }
}

/** One disk after another, and back in the other order. */
async function around<T>(
  hooked: ReadonlyMap<string, PointHooks>,
  command: string,
  work: () => Promise<T>,
): Promise<T> {
  const begun: (() => Promise<void>)[] = []
  try {
    for (const [disk, hooks] of hooked) {
      const point = { disk, command, nth: begun.length + 1 }
      begun.push(() => hooks.after(point))
      await hooks.before(point)
    }
    return await work()
  } finally {
    for (const after of begun.reverse()) await after().catch(() => undefined)
  }
}
