<#
.SYNOPSIS
  Manages PSTT Kafka as a Windows service: calls "python -m core service". Run it from an administrator's console.
.EXAMPLE
  .\deploy\manage_service.ps1 -action install -workspace D:\PSTT
  .\deploy\manage_service.ps1 -action restart -page
#>
param(
    [Parameter(Mandatory = $true)]
    [ValidateSet('install', 'uninstall', 'start', 'stop', 'restart', 'status')]
    [string]$action,
    [string]$workspace = (Get-Location).Path,
    [string]$account = '',
    [string]$name = '',
    [string]$nssm = 'nssm',
    [switch]$page,
    [switch]$dryRun
)
$root = Split-Path -Parent $PSScriptRoot
$arguments = @('-m', 'core', 'service', $action, '--workspace', $workspace, '--nssm', $nssm)
if ($account) { $arguments += @('--account', $account) }
if ($name) { $arguments += @('--name', $name) }
if ($page) { $arguments += '--page' }
if ($dryRun) { $arguments += '--dry-run' }
Push-Location $root
try { & (Join-Path $root '.venv\Scripts\python.exe') @arguments } finally { Pop-Location }
exit $LASTEXITCODE
