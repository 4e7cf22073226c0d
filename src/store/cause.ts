/** The cause that a record carries: which command, by whom, under which id (R13). */
import { hash } from 'node:crypto'
import type { RecordMeta } from '../../events/types.ts'
import { checkName } from '../commands/names.ts'
import { needObject } from './arguments.ts'
import type { AnyCommand } from './core.ts'
import type { CommandOptions } from './types.ts'

/** @throws CheckpointError NAME_EMPTY, NAME_TOO_LONG, NAME_INVALID for the ids and the actor */
export function causeOf(
  commands: readonly AnyCommand[],
  options: CommandOptions,
  actor: string | undefined,
  name?: string,
): RecordMeta {
  needObject('the options', options)
  const { commandId, correlationId, causationId } = options
  const by = options.actor ?? actor
  if (commandId !== undefined) checkName('command id', commandId)
  if (correlationId !== undefined) checkName('correlation id', correlationId)
  if (causationId !== undefined) checkName('causation id', causationId)
  if (by !== undefined) checkName('actor', by)
  return {
    command: name ?? (commands.length === 1 ? commands[0]!.type : 'transaction'),
    ...(commandId === undefined ? {} : { commandId, argumentsHash: argumentsHash(commands) }),
    ...(correlationId === undefined ? {} : { correlationId }),
    ...(causationId === undefined ? {} : { causationId }),
    ...(by === undefined ? {} : { actor: by }),
  }
}

/** SHA-256 over the commands with sorted keys. Of ids that the store made up only the fact counts: the caller did not say them. */
function argumentsHash(commands: readonly AnyCommand[]): string {
  const said = commands.map((command) => {
    if (!('madeUp' in command)) return command
    return Object.fromEntries(
      Object.entries(command).map(([key, value]) => [
        key,
        (command.madeUp as string[]).includes(key) && value !== undefined ? true : value,
      ]),
    )
  })
  return hash('sha256', JSON.stringify(canonical(said)), 'hex')
}

function canonical(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) return value.map(canonical)
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).filter(([, member]) => member !== undefined)
  return entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, member]) => [key, canonical(member)])
}
