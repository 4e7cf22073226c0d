/**
 * Thaws a guest when this process ends while it is frozen, however it ends: a shell of its own waits at the other end of a pipe,
 * which the system closes even after SIGKILL. It first ends a freeze that still runs. Costs one waiting shell a point.
 *
 * It cannot help where it is ended as well: a power cut, or a service manager that kills all of a service's processes.
 */
import { spawn } from 'node:child_process'

/**
 * Lines come in: the process group of a command that freezes, 0 once that has ended, `done` when all is over. The thaw is tried
 * again once, as in the process that died. Signals of a terminal or a service manager are for the others.
 */
const SCRIPT = `
trap '' HUP INT TERM
group=0
while read -r word; do
  [ "$word" = done ] && exit 0
  group=$word
done
[ "$group" = 0 ] || kill -s KILL -- "-$group" 2>/dev/null
/bin/sh -c "$SLICELOG_THAW" </dev/null && exit 0
sleep 1
exec /bin/sh -c "$SLICELOG_THAW" </dev/null
`

export interface ThawGuard {
  /** A command that freezes runs in this process group. */
  freezing(group: number): void
  /** It ended; the guest may be frozen. */
  frozen(): void
  /** It is thawed, or all that can be done was done. */
  done(): void
}

export function guardThaw(thaw: string, environment: Readonly<Record<string, string>>): ThawGuard {
  let say = (_: string): void => undefined
  try {
    const guard = spawn('/bin/sh', ['-c', SCRIPT], {
      detached: true,
      env: { ...process.env, ...environment, SLICELOG_THAW: thaw },
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    // Without it a point is as safe as this process is; the freeze itself will say what is wrong with starting processes.
    guard.on('error', () => undefined)
    guard.stdin.on('error', () => undefined)
    say = (word) => void guard.stdin.write(`${word}\n`)
  } catch {
    // As above.
  }
  return {
    freezing: (group) => say(String(group)),
    frozen: () => say('0'),
    done: () => say('done'),
  }
}
